"""The backward of `_dplr_delta_forward`: a tile's states again from the one kept in front, then back through them.

A job is one head of a row with all its columns, since the gradients of r, w, k, a and b sum over them.
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._blocks import clear_rows, clear_vectors, last_start, starts_at
from helix_plugin_cpu.kernels._dplr_delta_forward import inputs, removal, row_bytes
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._linear_attention_parts import lane_total
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, put, take_job
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
from helix_plugin_cpu.kernels._storage import FLOAT32, as_floats, clear_stored, read, size_of, write

PARTS = 5
"""Gradients that sum over columns: of r, w, k, a and b."""


def backward_scratch(keys: int, values: int, tile: int) -> int:
    """Bytes that `delta_backward_jobs` needs per thread."""
    blocks, rows = -(-values // LANES), -(-keys // LANES) * LANES
    return VECTOR * (blocks * keys * (tile + 2) + blocks * (tile + 3) + PARTS * rows + 4 * rows // LANES)


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
def pull(
    kind: float, r: int, k: int, b: int, dy: int, grad: int, dmoved: int, dv: int, keys: int, values: int, blocks: int
) -> None:
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
        write(kind, dv + size_of(kind) * LANES * block, dv_v, lanes)
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
def write_sums(kind: float, sums: int, target: int, keys: int) -> None:
    """Write one of the products of `push`, summed over lanes, for each key."""
    for i in range(0, keys, LANES):
        write(kind, target + size_of(kind) * i, sum_lanes(sums + VECTOR * i), keys - i)


@inline
def write_gated(
    kind: float, k: int, decay: int, beta: int, sums: int, rows: int, scale: float, keys: int,
    dr: int, dk: int, ddecay: int, dbeta: int, buffer: int,
) -> None:  # fmt: skip
    """Gradients of the gated delta rule's own inputs, for w = α, a = -α k, b = β k and k = β k.

    Those of r and k are written as float32.
    """
    shrink, share, part = broadcast(decay), broadcast(beta), VECTOR * rows
    of_decay, of_beta = splat(0.0), splat(0.0)
    for i in range(0, keys, LANES):
        at, left = sums + VECTOR * i, keys - i
        k_v = read(kind, k + size_of(kind) * i, left)
        taken, da = sum_lanes(at + 2 * part) + sum_lanes(at + 4 * part), sum_lanes(at + 3 * part)
        store_first(dr + FLOAT * i, sum_lanes(at) * scale, left)
        store_first(dk + FLOAT * i, fma(share, taken, -shrink * da), left)
        of_decay = of_decay + (sum_lanes(at + part) - da * k_v)
        of_beta = fma(taken, k_v, of_beta)
    put(ddecay, lane_total(of_decay, buffer))
    put(dbeta, lane_total(of_beta, buffer))


@kernel
def delta_backward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    r: int, w: int, k: int, v: int, a: int, b: int, dy: int, dlast: int, resets: int, ends: int, kept: int,
    dr: int, dw: int, dk: int, dv: int, da: int, db: int, dinitial: int,
    length: int, heads: int, groups: int, keys: int, values: int, tile: int, scale: float,
) -> None:  # fmt: skip
    """Dense arrays as in `delta_forward_jobs`; `dlast` may have address 0.

    Gradients are stored as what they are of is, but of the gated delta rule's queries and keys they are float32 and of
    every head, (B, L, H, K).
    """
    wide = size_of(kind)
    blocks, rows = (values + LANES - 1) // LANES, (keys + LANES - 1) // LANES * LANES
    tiles = (length + tile - 1) // tile
    size = VECTOR * blocks * keys
    grad = scratch + size * (tile + 1)
    moved = grad + size
    dmoved = moved + VECTOR * blocks * tile
    v_l = dmoved + VECTOR * blocks
    dy_l = v_l + VECTOR * blocks
    sums = dy_l + VECTOR * blocks
    a_l = sums + VECTOR * PARTS * rows
    rows_l = a_l + row_bytes(keys)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, head = job // heads, job % heads
        group = head // (heads // groups)
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
            for step in range(2 * (t_end - t)):  # there, and back
                back = step >= t_end - t
                i = 2 * (t_end - t) - 1 - step if back else step
                at = row * length + t + i
                key, number, value = (at * groups + group) * keys, at * heads + head, (at * heads + head) * values
                here, moved_l = scratch + size * i, moved + VECTOR * blocks * i
                a_at = removal(kind, k, w, a, key, number, keys, a_l)
                r_at, w_at, k_at, b_at = inputs(kind, r, w, k, a, b, key, number, scale, keys, rows_l)
                v_at = as_floats(kind, v + wide * value, values, v_l)
                if not back:
                    recompute(w_at, k_at, v_at, a_at, b_at, here, here + size, moved_l, keys, values, blocks)
                    continue
                dy_at = as_floats(kind, dy + wide * value, values, dy_l)
                pull(kind, r_at, k_at, b_at, dy_at, grad, dmoved, dv + wide * value, keys, values, blocks)
                push(
                    w_at, a_at, v_at, dy_at, here, here + size, moved_l, grad, dmoved, sums, keys, values, blocks, rows
                )
                if a == 0:
                    to = FLOAT * number
                    write_gated(
                        kind, k + wide * key, w + to, b + to, sums, rows, scale, keys,
                        dr + to * keys, dk + to * keys, dw + to, db + to, rows_l,
                    )  # fmt: skip
                else:
                    part = VECTOR * rows
                    write_sums(kind, sums, dr + wide * key, keys)
                    write_sums(FLOAT32, sums + part, dw + FLOAT * key, keys)
                    write_sums(kind, sums + 2 * part, dk + wide * key, keys)
                    write_sums(kind, sums + 3 * part, da + wide * key, keys)
                    write_sums(kind, sums + 4 * part, db + wide * key, keys)
            if fresh:  # nothing flows into the document before
                clear_vectors(grad, blocks * keys)
            t_end = t
        at = (row * length + end) * heads + head
        for target in (dr, dk, da, db):
            if a != 0:
                clear_stored(kind, target + wide * at * keys, heads * keys, length - end, keys)
        if a != 0:
            clear_rows(dw + FLOAT * at * keys, heads * keys, length - end, keys)
        else:
            for target in (dr, dk):
                clear_rows(target + FLOAT * at * keys, heads * keys, length - end, keys)
            for target in (dw, db):
                clear_rows(target + FLOAT * at, heads, length - end, 1)
        clear_stored(kind, dv + wide * at * values, heads * values, length - end, values)
        for i in range(keys):
            for block in range(blocks):
                into = dinitial + FLOAT * ((job * keys + i) * values + block * LANES)
                store_first(into, load(grad + VECTOR * (i * blocks + block)), values - block * LANES)
