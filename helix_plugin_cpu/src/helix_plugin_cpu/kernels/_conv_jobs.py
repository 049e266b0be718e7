"""The short convolution: a job is one row of the batch and a few blocks of channels, in tiles of time.

Where a tile needs inputs from in front of a row or of a document, its own are copied to a local window behind carried
ones or zeros. So the loop over taps knows neither rows' beginnings nor documents.
"""

from __future__ import annotations

from typing import Any

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
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, take_job
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

TILE = 16
FEW = 4
"""Up to so many taps are computed in registers, padded with zeros in front."""


def conv_scratch(K: int, group: int) -> int:
    """Bytes that either kernel needs per thread."""
    K = max(K, FEW)
    return VECTOR * (group * (3 * K + 1) + 3 * (TILE + 2 * K))


@inline
def gather_taps(weight: int, K: int, lanes: int, w: int) -> None:
    """The weights of a block, those of fewer than four taps behind zeros."""
    clear_vectors(w, FEW - K)
    gather_block(weight, K, K, lanes, 1.0, w + VECTOR * max(0, FEW - K))


@inline
def fill_window(
    kind: float, window: int, x: int, x_t: int, initial: int, channels: int, begin: int, t: int, steps: int,
    before: int, K: int, lanes: int,
) -> None:  # fmt: skip
    """Inputs t-before .. t+steps-1 of a row's block; in front of `begin` those of `initial` (K-1 rows), or zeros."""
    for i in range(before + steps):
        s = t - before + i
        if s >= begin:
            value = read(kind, x + size_of(kind) * s * x_t, lanes)
        elif initial != 0 and 1 - K <= s < 0:
            value = load_first(initial + FLOAT * (K - 1 + s) * channels, lanes)
        else:
            value = splat(0.0)
        store(window + VECTOR * i, value)


@inline
def four_taps(w: int) -> Any:
    """The weights of four taps."""
    return load(w), load(w + VECTOR), load(w + 2 * VECTOR), load(w + 3 * VECTOR)


@inline
def many_taps(kind: float, x: int, row: int, w: int, K: int, start: Vec, lanes: int) -> Vec:
    """start + Σ_k w_k x_k, where rows of x are so many bytes apart."""
    for k in range(K):
        start = fma(load(w + VECTOR * k), read(kind, x + row * k, lanes), start)
    return start


@inline
def convolve(
    kind: float, x: int, x_t: int, w: int, K: int, bias: Vec, activate: int, out_kind: float, out: int, out_t: int,
    steps: int, lanes: int,
) -> None:  # fmt: skip
    """Outputs of a tile; x is where the first input lies that its first output depends on."""
    row = size_of(kind) * x_t
    if K <= FEW:
        w0, w1, w2, w3 = four_taps(w)
        a, b, c = read(kind, x, lanes), read(kind, x + row, lanes), read(kind, x + 2 * row, lanes)
        x += 3 * row
        for i in range(steps):
            d = read(kind, x + row * i, lanes)
            y_v = fma(w3, d, fma(w2, c, fma(w1, b, fma(w0, a, bias))))
            if activate:
                y_v = y_v * sigmoid(y_v)
            write(out_kind, out + size_of(out_kind) * i * out_t, y_v, lanes)
            a, b, c = b, c, d
    else:
        for i in range(steps):
            y_v = many_taps(kind, x + row * i, row, w, K, bias, lanes)
            if activate:
                y_v = y_v * sigmoid(y_v)
            write(out_kind, out + size_of(out_kind) * i * out_t, y_v, lanes)


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
    w_size, before = VECTOR * max(K, FEW), max(K, FEW) - 1
    w_l = scratch
    window = w_l + w_size * group
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
            gather_taps(weight + FLOAT * d * K, K, min(LANES, channels - d), w_l + w_size * (block - first))
        begin = 0
        while begin < end:  # once per document
            run_end = next_start(flags, begin, end)
            fresh = starts_at(flags, begin)
            for t in range(begin, run_end, TILE):
                steps = min(TILE, run_end - t)
                for block in range(first, stop):
                    d = block * LANES
                    lanes = min(LANES, channels - d)
                    w = w_l + w_size * (block - first)
                    bias_v = load_first(bias + FLOAT * d, lanes) if bias != 0 else splat(0.0)
                    source = x + wide * (row * x_b + d)
                    out = y + wide * ((row * length + t) * channels + d)
                    if t - before >= begin:
                        source += wide * (t - before) * x_t
                        convolve(kind, source, x_t, w, K, bias_v, activate, kind, out, channels, steps, lanes)
                    else:
                        carried = 0 if fresh or initial == 0 else initial + FLOAT * (row * (K - 1) * channels + d)
                        fill_window(
                            kind, window, source, x_t, carried, channels, begin, t, steps, before, K, lanes
                        )  # fmt: skip
                        convolve(
                            FLOAT32, window, LANES, w, K, bias_v, activate, kind, out, channels, steps, lanes
                        )  # fmt: skip
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
            fill_window(
                kind, window, x + wide * (row * x_b + d), x_t, carried, channels, begin, end, 0, K - 1, K, lanes
            )  # fmt: skip
            for i in range(K - 1):
                into = last + FLOAT * ((row * (K - 1) + i) * channels + d)
                store_first(into, load(window + VECTOR * i), lanes)


@inline
def turned_taps(w: int, owed: int, K: int) -> Vec:
    """Σ_k w_{K-1-k} owed_k."""
    total = splat(0.0)
    for k in range(K):
        total = fma(load(w + VECTOR * (K - 1 - k)), load(owed + VECTOR * k), total)
    return total


@inline
def in_front(kind: float, dy: int, y: Vec, lanes: int, activate: int) -> Vec:
    """The gradient in front of the activation, from that behind it."""
    p_v = read(kind, dy, lanes) if dy != 0 else splat(0.0)
    return p_v * silu_slope(y, sigmoid(y)) if activate else p_v


@inline
def convolve_back(
    kind: float, x: int, x_t: int, w: int, K: int, bias: Vec, activate: int, out_kind: float, dy: int, dy_t: int,
    dx: int, dx_t: int, steps: int, lanes: int, later: int, dw: int, dbias: int, owed: int,
) -> None:  # fmt: skip
    """Gradients of a tile, from its last step to its first; x as in `convolve`.

    `later` holds the gradients in front of the activation of the K-1 steps behind the tile, and then those of its own
    first. dw and dbias are added to. `owed` is room for a tile of more than four taps.
    """
    row, wide = size_of(kind) * x_t, size_of(out_kind)
    dbias_v = load(dbias)
    if K <= FEW:
        w0, w1, w2, w3 = four_taps(w)
        dw0, dw1, dw2, dw3 = four_taps(dw)
        q1, q2, q3 = load(later), load(later + VECTOR), load(later + 2 * VECTOR)
        end = x + row * steps
        b, c, d = read(kind, end, lanes), read(kind, end + row, lanes), read(kind, end + 2 * row, lanes)
        for j in range(steps):
            i = steps - 1 - j
            a = read(kind, x + row * i, lanes)
            y_v = fma(w3, d, fma(w2, c, fma(w1, b, fma(w0, a, bias))))
            p_v = in_front(out_kind, dy + wide * i * dy_t if dy != 0 else 0, y_v, lanes, activate)
            dbias_v = dbias_v + p_v
            dw0, dw1, dw2, dw3 = fma(p_v, a, dw0), fma(p_v, b, dw1), fma(p_v, c, dw2), fma(p_v, d, dw3)
            write(out_kind, dx + wide * i * dx_t, fma(w0, q3, fma(w1, q2, fma(w2, q1, w3 * p_v))), lanes)
            q1, q2, q3 = p_v, q1, q2
            b, c, d = a, b, c
        store(later, q1)
        store(later + VECTOR, q2)
        store(later + 2 * VECTOR, q3)
        store(dw, dw0)
        store(dw + VECTOR, dw1)
        store(dw + 2 * VECTOR, dw2)
        store(dw + 3 * VECTOR, dw3)
    else:
        copy_vectors(later, owed + VECTOR * steps, K - 1)
        for i in range(steps):
            y_v = many_taps(kind, x + row * i, row, w, K, bias, lanes)
            p_v = in_front(out_kind, dy + wide * i * dy_t if dy != 0 else 0, y_v, lanes, activate)
            dbias_v = dbias_v + p_v
            store(owed + VECTOR * i, p_v)
        for k in range(K):
            dw_v = load(dw + VECTOR * k)
            for i in range(steps):
                dw_v = fma(load(owed + VECTOR * i), read(kind, x + row * (i + k), lanes), dw_v)
            store(dw + VECTOR * k, dw_v)
        for i in range(steps):
            write(out_kind, dx + wide * i * dx_t, turned_taps(w, owed + VECTOR * i, K), lanes)
        copy_vectors(owed, later, K - 1)
    store(dbias, dbias_v)


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
    dlast: int, resets: int, ends: int, dx: int, dw: int, dinitial: int,
    length: int, channels: int, K: int, group: int, activate: int,
) -> None:  # fmt: skip
    """Tiles from last to first. dw (B, blocks, K + 1, 16), whose last row is of the bias, are partial sums.

    x, dy and dx are stored as `kind` says, everything else as float32.
    """
    wide = size_of(kind)
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    w_size, before = VECTOR * max(K, FEW), max(K, FEW) - 1
    w_l, dw_l = scratch, scratch + w_size * group
    later_l = dw_l + w_size * group
    dbias_l = later_l + w_size * group
    window = dbias_l + VECTOR * group
    owed = window + VECTOR * (TILE + before)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // groups, (job % groups) * group
        stop = min(blocks, first + group)
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        clear_vectors(scratch, group * (3 * before + 4))
        for block in range(first, stop):
            d = block * LANES
            gather_taps(weight + FLOAT * d * K, K, min(LANES, channels - d), w_l + w_size * (block - first))
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
                place = w_size * (block - first)
                w, dw_b, later, dbias_b = w_l + place, dw_l + place, later_l + place, dbias_l + VECTOR * (block - first)
                bias_v = load_first(bias + FLOAT * d, lanes) if bias != 0 else splat(0.0)
                source = x + wide * (row * x_b + d)
                dy_row = dy + wide * (row * dy_b + t * dy_t + d) if dy != 0 else 0
                dx_row = dx + wide * ((row * length + t) * channels + d)
                if t - before >= begin:
                    source += wide * (t - before) * x_t
                    convolve_back(
                        kind, source, x_t, w, K, bias_v, activate, kind, dy_row, dy_t, dx_row, channels, steps, lanes,
                        later, dw_b, dbias_b, owed,
                    )  # fmt: skip
                else:
                    carried = 0 if fresh or initial == 0 else initial + FLOAT * (row * (K - 1) * channels + d)
                    fill_window(kind, window, source, x_t, carried, channels, begin, t, steps, before, K, lanes)
                    convolve_back(
                        FLOAT32, window, LANES, w, K, bias_v, activate, kind, dy_row, dy_t, dx_row, channels, steps,
                        lanes, later, dw_b, dbias_b, owed,
                    )  # fmt: skip
                if t == 0 and not fresh:  # what is owed to inputs in front of the row
                    clear_vectors(owed, K - 1)
                    copy_vectors(later, owed + VECTOR * (K - 1), K - 1)
                    for i in range(K - 1):
                        into = dinitial + FLOAT * ((row * (K - 1) + i) * channels + d)
                        store_first(into, turned_taps(w + w_size - VECTOR * K, owed + VECTOR * i, K), lanes)
                if t == begin and fresh:  # nothing is owed to the document before
                    clear_vectors(later, before)
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
        for block in range(first, stop):
            behind = dw_l + w_size * (block - first + 1) - VECTOR * K
            into = dw + (row * blocks + block) * (K + 1) * VECTOR
            copy_vectors(behind, into, K)
            copy_vectors(dbias_l + (block - first) * VECTOR, into + K * VECTOR, 1)
