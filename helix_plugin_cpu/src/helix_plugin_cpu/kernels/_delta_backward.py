"""The backward of `_delta_forward`: a tile's states again from the one kept in front of it, then back through them.

A job is one head of a row with all its columns, since the gradients of r, w, k, a and b sum over them.
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._blocks import clear_rows, clear_vectors, last_start, starts_at
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, take_job
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    broadcast,
    fma,
    load,
    load_first,
    splat,
    store,
    store_first,
    sum_lanes,
)

PARTS = 5
"""Gradients that sum over columns: of r, w, k, a and b."""


def backward_scratch(keys: int, values: int, tile: int) -> int:
    """Bytes that `delta_backward_jobs` needs per thread."""
    blocks, rows = -(-values // LANES), -(-keys // LANES) * LANES
    return VECTOR * (blocks * keys * (tile + 2) + blocks * (tile + 1) + PARTS * rows)


@inline
def restore(source: int, values: int, keys: int, blocks: int, target: int) -> None:
    """(K, V) at `source` -> (K, blocks, 16), zero-padded; zeros if it is 0."""
    for k in range(keys):
        for block in range(blocks):
            value = splat(0.0)
            if source != 0:
                value = load_first(source + FLOAT * (k * values + block * LANES), values - block * LANES)
            store(target + VECTOR * (k * blocks + block), value)


@inline
def recompute(
    w: int, k: int, v: int, a: int, b: int, state: int, following: int, moved: int, keys: int, values: int, blocks: int
) -> None:
    """The state after a step at `following`, and Sᵀa of the step at `moved`."""
    for block in range(blocks):
        at = VECTOR * block
        d = splat(0.0)
        for i in range(keys):
            d = fma(broadcast(a + FLOAT * i), load(state + VECTOR * blocks * i + at), d)
        store(moved + at, d)
        v_v = load_first(v + at, values - block * LANES)
        for i in range(keys):
            here = VECTOR * blocks * i + at
            s = fma(broadcast(b + FLOAT * i), d, broadcast(k + FLOAT * i) * v_v)
            store(following + here, fma(broadcast(w + FLOAT * i), load(state + here), s))


@inline
def pull(r: int, k: int, b: int, dy: int, grad: int, dmoved: int, dv: int, keys: int, values: int, blocks: int) -> None:
    """The state's gradient takes in that of y; from it, those of v and of Sᵀa."""
    for block in range(blocks):
        at, lanes = VECTOR * block, values - block * LANES
        dy_v = load_first(dy + at, lanes)
        dv_v, dd_v = splat(0.0), splat(0.0)
        for i in range(keys):
            here = grad + VECTOR * blocks * i + at
            g = fma(broadcast(r + FLOAT * i), dy_v, load(here))
            store(here, g)
            dv_v = fma(broadcast(k + FLOAT * i), g, dv_v)
            dd_v = fma(broadcast(b + FLOAT * i), g, dd_v)
        store_first(dv + at, dv_v, lanes)
        store(dmoved + at, dd_v)


@inline
def push(
    w: int, a: int, v: int, dy: int, state: int, following: int, moved: int, grad: int, dmoved: int, sums: int,
    keys: int, values: int, blocks: int, rows: int,
) -> None:  # fmt: skip
    """Products that are yet to be summed over lanes, (5, rows, 16); and the gradient of the state before the step."""
    for i in range(keys):
        w_v, a_v = broadcast(w + FLOAT * i), broadcast(a + FLOAT * i)
        dr, dw, dk, da, db = splat(0.0), splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for block in range(blocks):
            at, lanes = VECTOR * block, values - block * LANES
            here = VECTOR * blocks * i + at
            g, before, dd = load(grad + here), load(state + here), load(dmoved + at)
            dr = fma(load_first(dy + at, lanes), load(following + here), dr)
            dw = fma(g, before, dw)
            dk = fma(g, load_first(v + at, lanes), dk)
            da = fma(dd, before, da)
            db = fma(g, load(moved + at), db)
            store(grad + here, fma(w_v, g, a_v * dd))
        to, part = sums + VECTOR * i, VECTOR * rows
        store(to, dr)
        store(to + part, dw)
        store(to + 2 * part, dk)
        store(to + 3 * part, da)
        store(to + 4 * part, db)


@inline
def write_sums(sums: int, target: int, keys: int) -> None:
    for i in range(0, keys, LANES):
        store_first(target + FLOAT * i, sum_lanes(sums + VECTOR * i), keys - i)


@kernel
def delta_backward_jobs(
    counter: int, jobs: int, scratch: int,
    r: int, w: int, k: int, v: int, a: int, b: int, dy: int, dlast: int, resets: int, ends: int, kept: int,
    dr: int, dw: int, dk: int, dv: int, da: int, db: int, dinitial: int,
    length: int, heads: int, keys: int, values: int, tile: int,
) -> None:  # fmt: skip
    """Dense arrays as in `delta_forward_jobs`; `dlast` may have address 0."""
    blocks, rows = (values + LANES - 1) // LANES, (keys + LANES - 1) // LANES * LANES
    tiles = (length + tile - 1) // tile
    size = VECTOR * blocks * keys
    grad = scratch + size * (tile + 1)
    moved = grad + size
    dmoved = moved + VECTOR * blocks * tile
    sums = dmoved + VECTOR * blocks
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, head = job // heads, job % heads
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        restore(dlast + FLOAT * job * keys * values if dlast != 0 else 0, values, keys, blocks, grad)
        clear_vectors(sums, PARTS * rows)
        t_end = end
        while t_end > 0:
            t = last_start(flags, (t_end - 1) // tile * tile, t_end)
            fresh = starts_at(flags, t)
            source = kept + FLOAT * (job * tiles + t // tile) * keys * values
            restore(0 if fresh else source, values, keys, blocks, scratch)
            for i in range(t_end - t):
                at = (row * length + t + i) * heads + head
                key, value = FLOAT * at * keys, FLOAT * at * values
                here = scratch + size * i
                recompute(
                    w + key, k + key, v + value, a + key, b + key, here, here + size,
                    moved + VECTOR * blocks * i, keys, values, blocks,
                )  # fmt: skip
            for i in range(t_end - t - 1, -1, -1):
                at = (row * length + t + i) * heads + head
                key, value = FLOAT * at * keys, FLOAT * at * values
                here = scratch + size * i
                pull(r + key, k + key, b + key, dy + value, grad, dmoved, dv + value, keys, values, blocks)
                push(
                    w + key, a + key, v + value, dy + value, here, here + size, moved + VECTOR * blocks * i,
                    grad, dmoved, sums, keys, values, blocks, rows,
                )  # fmt: skip
                part = VECTOR * rows
                write_sums(sums, dr + key, keys)
                write_sums(sums + part, dw + key, keys)
                write_sums(sums + 2 * part, dk + key, keys)
                write_sums(sums + 3 * part, da + key, keys)
                write_sums(sums + 4 * part, db + key, keys)
            if fresh:  # nothing flows into the document before
                clear_vectors(grad, blocks * keys)
            t_end = t
        at = (row * length + end) * heads + head
        padding, stride = FLOAT * at * keys, heads * keys
        clear_rows(dr + padding, stride, length - end, keys)
        clear_rows(dw + padding, stride, length - end, keys)
        clear_rows(dk + padding, stride, length - end, keys)
        clear_rows(da + padding, stride, length - end, keys)
        clear_rows(db + padding, stride, length - end, keys)
        clear_rows(dv + FLOAT * at * values, heads * values, length - end, values)
        for i in range(keys):
            for block in range(blocks):
                into = dinitial + FLOAT * ((job * keys + i) * values + block * LANES)
                store_first(into, load(grad + VECTOR * (i * blocks + block)), values - block * LANES)
