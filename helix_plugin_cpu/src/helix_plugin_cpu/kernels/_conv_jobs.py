"""The short convolution: a job is one row of the batch and a few blocks of channels, in tiles of time.

A tile's inputs are copied to a local window with the K-1 inputs before them in front: real ones, carried-over
ones, or zeros. So the loop over taps knows neither rows' beginnings nor documents.
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._blocks import (
    clear_vectors,
    copy_vectors,
    gather_block,
    last_start,
    next_start,
    starts_at,
)
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._math import sigmoid, silu_slope
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, prefetch, take_job
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    Vec,
    fma,
    load,
    load_first,
    splat,
    store,
    store_first,
)
from helix_plugin_cpu.kernels._storage import FLOAT32, clear_stored, read, size_of, write

TILE = 64


def conv_scratch(K: int, group: int) -> int:
    """Bytes that either kernel needs per thread."""
    return VECTOR * (group * (3 * K + 1) + 3 * (TILE + 2 * K))


@inline
def fill_window(
    kind: float, window: int, x: int, x_t: int, initial: int, channels: int, begin: int, t: int, steps: int, K: int,
    lanes: int,
) -> None:  # fmt: skip
    """Inputs t-K+1 .. t+steps-1 of a row's block; those before `begin` are of `initial`, or zeros."""
    for i in range(K - 1 + steps):
        s = t - (K - 1) + i
        if s >= begin:
            prefetch(x + size_of(kind) * (s + steps) * x_t)
            value = read(kind, x + size_of(kind) * s * x_t, lanes)
        elif initial != 0 and s < 0:
            value = load_first(initial + FLOAT * (K - 1 + s) * channels, lanes)
        else:
            value = splat(0.0)
        store(window + VECTOR * i, value)


@inline
def taps(w: int, window: int, K: int, start: Vec) -> Vec:
    """start + Σ_k w_k window_k."""
    if K == 4:  # the usual size, unrolled
        for k in range(4):
            start = fma(load(w + VECTOR * k), load(window + VECTOR * k), start)
    else:
        for k in range(K):
            start = fma(load(w + VECTOR * k), load(window + VECTOR * k), start)
    return start


@inline
def turned_taps(w: int, owed: int, K: int) -> Vec:
    """Σ_k w_{K-1-k} owed_k."""
    total = splat(0.0)
    for k in range(K):
        total = fma(load(w + VECTOR * (K - 1 - k)), load(owed + VECTOR * k), total)
    return total


@kernel
def conv_forward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    x: int, x_b: int, x_t: int, weight: int, bias: int, initial: int, resets: int, ends: int,
    y: int, last: int, length: int, channels: int, K: int, group: int, activate: int,
) -> None:  # fmt: skip
    """Optional arrays have the address 0. x and y are stored as `kind` says, everything else as float32."""
    wide = size_of(kind)
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    w_l = scratch
    window = w_l + VECTOR * K * group
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // groups, (job % groups) * group
        stop = min(blocks, first + group)
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        for block in range(first, stop):
            d = block * LANES
            w = w_l + VECTOR * K * (block - first)
            gather_block(weight + FLOAT * d * K, K, K, min(LANES, channels - d), 1.0, w)
        begin = 0
        while begin < end:  # once per document
            run_end = next_start(flags, begin, end)
            fresh = starts_at(flags, begin)
            for t in range(begin, run_end, TILE):
                steps = min(TILE, run_end - t)
                for block in range(first, stop):
                    d = block * LANES
                    lanes = min(LANES, channels - d)
                    carried = 0 if fresh or initial == 0 else initial + FLOAT * (row * (K - 1) * channels + d)
                    source = x + wide * (row * x_b + d)
                    fill_window(kind, window, source, x_t, carried, channels, begin, t, steps, K, lanes)
                    w = w_l + VECTOR * K * (block - first)
                    bias_v = load_first(bias + FLOAT * d, lanes) if bias != 0 else splat(0.0)
                    out = y + wide * ((row * length + t) * channels + d)
                    for i in range(steps):
                        y_v = taps(w, window + VECTOR * i, K, bias_v)
                        if activate:
                            y_v = y_v * sigmoid(y_v)
                        write(kind, out + wide * i * channels, y_v, lanes)
            begin = run_end
        d = first * LANES
        width = min(channels, stop * LANES) - d
        clear_stored(kind, y + wide * ((row * length + end) * channels + d), channels, length - end, width)
        begin = last_start(flags, 0, end)
        fresh = starts_at(flags, begin) and end > 0
        for block in range(first, stop):
            d = block * LANES
            lanes = min(LANES, channels - d)
            carried = 0 if fresh or initial == 0 else initial + FLOAT * (row * (K - 1) * channels + d)
            fill_window(kind, window, x + wide * (row * x_b + d), x_t, carried, channels, begin, end, 0, K, lanes)
            for i in range(K - 1):
                into = last + FLOAT * ((row * (K - 1) + i) * channels + d)
                store_first(into, load(window + VECTOR * i), lanes)


@inline
def add_rows(kind: float, source: int, source_t: int, target: int, target_t: int, rows: int, lanes: int) -> None:
    """float32 rows at `source` to rows at `target` that are stored as `kind` says."""
    for i in range(rows):
        at = target + size_of(kind) * i * target_t
        write(kind, at, read(kind, at, lanes) + load_first(source + FLOAT * i * source_t, lanes), lanes)


@kernel
def conv_backward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    x: int, x_b: int, x_t: int, dy: int, dy_b: int, dy_t: int, weight: int, bias: int, initial: int,
    dlast: int, resets: int, ends: int, dx: int, dw: int, dbias: int, dinitial: int,
    length: int, channels: int, K: int, group: int, activate: int,
) -> None:  # fmt: skip
    """Tiles from last to first. dw (B, blocks, K, 16) and dbias (B, blocks, 16) are partial sums.

    `owed` holds a tile's gradients in front of the activation, K-1 rows of zeros before them, the next tile's
    first K-1 rows behind them: the same taps, turned around, give dx, and at the zeros that of `initial`.
    x, dy and dx are stored as `kind` says, everything else as float32.
    """
    wide = size_of(kind)
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    w_l, dw_l = scratch, scratch + VECTOR * K * group
    later_l = dw_l + VECTOR * K * group
    dbias_l = later_l + VECTOR * K * group
    window = dbias_l + VECTOR * group
    owed = window + VECTOR * (TILE + K)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // groups, (job % groups) * group
        stop = min(blocks, first + group)
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        clear_vectors(scratch, group * (3 * K + 1))
        for block in range(first, stop):
            d = block * LANES
            w = w_l + VECTOR * K * (block - first)
            gather_block(weight + FLOAT * d * K, K, K, min(LANES, channels - d), 1.0, w)
            for i in range(K - 1):
                into = dinitial + FLOAT * ((row * (K - 1) + i) * channels + d)
                store_first(into, splat(0.0), min(LANES, channels - d))
        t_end = end
        while t_end > 0:
            begin = last_start(flags, 0, t_end)
            fresh = starts_at(flags, begin)
            t = max(begin, (t_end - 1) // TILE * TILE)
            steps = t_end - t
            for block in range(first, stop):
                d = block * LANES
                lanes = min(LANES, channels - d)
                w, later = w_l + VECTOR * K * (block - first), later_l + VECTOR * K * (block - first)
                dw_b, dbias_b = dw_l + VECTOR * K * (block - first), dbias_l + VECTOR * (block - first)
                carried = 0 if fresh or initial == 0 else initial + FLOAT * (row * (K - 1) * channels + d)
                source = x + wide * (row * x_b + d)
                fill_window(kind, window, source, x_t, carried, channels, begin, t, steps, K, lanes)
                bias_v = load_first(bias + FLOAT * d, lanes) if bias != 0 else splat(0.0)
                dbias_v = load(dbias_b)
                clear_vectors(owed, K - 1)
                behind = owed + VECTOR * (K - 1)
                for i in range(steps):
                    p_v = splat(0.0)
                    if dy != 0:
                        prefetch(dy + wide * (row * dy_b + (t + i - steps) * dy_t + d))
                        p_v = read(kind, dy + wide * (row * dy_b + (t + i) * dy_t + d), lanes)
                    if activate:
                        y_v = taps(w, window + VECTOR * i, K, bias_v)
                        p_v = p_v * silu_slope(y_v, sigmoid(y_v))
                    dbias_v = dbias_v + p_v
                    store(behind + VECTOR * i, p_v)
                store(dbias_b, dbias_v)
                copy_vectors(later, behind + VECTOR * steps, K - 1)
                for k in range(K):
                    dw_v = load(dw_b + VECTOR * k)
                    for i in range(steps):
                        dw_v = fma(load(behind + VECTOR * i), load(window + VECTOR * (i + k)), dw_v)
                    store(dw_b + VECTOR * k, dw_v)
                for i in range(steps):
                    dx_row = dx + wide * ((row * length + t + i) * channels + d)
                    write(kind, dx_row, turned_taps(w, behind + VECTOR * i, K), lanes)
                if t == 0 and not fresh:
                    for i in range(K - 1):
                        into = dinitial + FLOAT * ((row * (K - 1) + i) * channels + d)
                        store_first(into, turned_taps(w, owed + VECTOR * i, K), lanes)
                copy_vectors(behind, later, K - 1)
                if t == begin and fresh:  # nothing is owed to the document before
                    clear_vectors(later, K - 1)
            t_end = t
        d = first * LANES
        width = min(channels, stop * LANES) - d
        clear_stored(kind, dx + wide * ((row * length + end) * channels + d), channels, length - end, width)
        begin = last_start(flags, 0, end)
        fresh = end > 0 and starts_at(flags, begin)
        seen = min(K - 1, end - begin)  # of the last state, so many rows are inputs of this call
        for block in range(first, stop):
            d = block * LANES
            lanes = min(LANES, channels - d)
            if dlast != 0:
                from_x = dlast + FLOAT * ((row * (K - 1) + K - 1 - seen) * channels + d)
                into_x = dx + wide * ((row * length + end - seen) * channels + d)
                add_rows(kind, from_x, channels, into_x, channels, seen, lanes)
                if not fresh:
                    from_initial = dlast + FLOAT * (row * (K - 1) * channels + d)
                    into_initial = dinitial + FLOAT * ((row * (K - 1) + seen) * channels + d)
                    add_rows(FLOAT32, from_initial, channels, into_initial, channels, K - 1 - seen, lanes)
        copy_vectors(dw_l, dw + (row * blocks + first) * K * VECTOR, (stop - first) * K)
        copy_vectors(dbias_l, dbias + (row * blocks + first) * VECTOR, stop - first)
