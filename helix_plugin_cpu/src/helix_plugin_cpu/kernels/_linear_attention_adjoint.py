"""The gradient of linear attention within a chunk, from what `prepare_head` and the products left in scratch memory."""

from __future__ import annotations

import numpy as np

from helix_plugin_cpu.kernels._jit import part
from helix_plugin_cpu.kernels._linear_attention_parts import padded
from helix_plugin_cpu.kernels._math import sigmoid, softplus
from helix_plugin_cpu.kernels._matmul import ADD, SCALE, ZERO, multiply, transpose
from helix_plugin_cpu.kernels._memory import FLOAT, get, put
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    broadcast,
    fma,
    load,
    load_first,
    splat,
    store,
    sum_lanes,
)
from helix_plugin_cpu.kernels._storage import read, read_one, size_of, write


@part
def adjoint_products(
    state: int, dstate: int, qs: int, ks: int, v: int, dy: int, scores: int, chunk: int, total: int, steps: int,
    keys: int, values: int, turned_v: int, turned_s: int, dqs: int, dks: int, dv: int, dscores: int, dtotal: int,
) -> None:  # fmt: skip
    """Gradients of decayed q and k, of v and the scores; dstate moves from behind the chunk to in front of it.

    state is 0 where the chunk starts a document. dtotal (keys,) = the gradient of log total through the state.
    """
    K, V, rows = padded(keys), padded(values), padded(steps)
    transpose(v, V, rows, V, turned_v, rows)
    for i in range(0, rows, LANES):
        multiply(
            dscores + FLOAT * i * chunk, chunk, LANES, i + LANES, dy + FLOAT * i * V, V, 1, turned_v, rows, values,
            ZERO, 0,
        )  # fmt: skip
    transpose(dstate, V, K, V, turned_s, K)
    multiply(dks, K, rows, K, v, V, 1, turned_s, K, values, ZERO, 0)
    multiply(dv, V, rows, V, ks, K, 1, dstate, V, keys, ZERO, 0)
    for i in range(0, rows, LANES):
        mine = scores + FLOAT * (i * chunk + i)
        multiply(dv + FLOAT * i * V, V, LANES, V, mine, 1, chunk, dy + FLOAT * i * V, V, rows - i, ADD, 0)
    if state != 0:
        transpose(state, V, K, V, turned_s, K)
        multiply(dqs, K, rows, K, dy, V, 1, turned_s, K, values, ZERO, 0)
        for n in range(0, K, LANES):
            for i in range(LANES):
                dot = splat(0.0)
                for p in range(0, V, LANES):
                    at = FLOAT * ((n + i) * V + p)
                    dot = fma(load(state + at), load(dstate + at), dot)
                store(turned_s + VECTOR * i, dot)
            store(dtotal + FLOAT * n, sum_lanes(turned_s) * load(total + FLOAT * n))
        multiply(dstate, V, K, V, qs, 1, K, dy, V, steps, SCALE, total)
    else:
        for i in range(0, rows * K, LANES):
            store(dqs + FLOAT * i, splat(0.0))
        for n in range(0, K, LANES):
            store(dtotal + FLOAT * n, splat(0.0))
        for i in range(0, K * V, LANES):
            store(dstate + FLOAT * i, splat(0.0))


@part
def fold(d: int, x: int, factors: int, rows: int, wide: int, total: int, sums: int, dots: int) -> None:
    """total += factor d for each row; dots[t] = Σ_n d x of a row."""
    for t in range(rows):
        factor, dot = broadcast(factors + FLOAT * t), splat(0.0)
        for n in range(0, wide, LANES):
            at = FLOAT * (t * wide + n)
            d_v = load(d + at)
            dot = fma(d_v, load(x + at), dot)
            store(total + at, fma(d_v, factor, load(total + at)))
        store(sums + VECTOR * t, dot)
    for t in range(0, rows, LANES):
        store(dots + FLOAT * t, sum_lanes(sums + VECTOR * t))


@part
def fold_scores(
    dscores: int, scores: int, gaps: int, rows: int, chunk: int, dproducts: int, sums: int, later: int, earlier: int
) -> None:
    """dproducts += dscores gaps; later[t], earlier[s]: sums of dscores scores over s < t, by row and by column."""
    for s in range(0, rows, LANES):
        store(earlier + FLOAT * s, splat(0.0))
    spare = sums + VECTOR * rows
    for t in range(rows):
        row = splat(0.0)
        for s in range(0, t + 1, LANES):
            at = FLOAT * (t * chunk + s)
            d = load(dscores + at)
            store(dproducts + at, fma(d, load(gaps + at), load(dproducts + at)))
            both = d * load(scores + at)
            if t < s + LANES:
                store(spare, both)
                both = load_first(spare, t - s)
            row = row + both
            store(earlier + FLOAT * s, load(earlier + FLOAT * s) + both)
        store(sums + VECTOR * t, row)
    for t in range(0, rows, LANES):
        store(later + FLOAT * t, sum_lanes(sums + VECTOR * t))


@part
def log_decay_gradient(
    later: int, earlier: int, since: int, until: int, dtotal: int, steps: int, keys: int, target: int
) -> None:
    """target[t] = dL/d log decay_t of a head with one decay, from how much each pair and each step to the state gave.

    A step's decay lies in every path that crosses it: scores (t, s) with s < it <= t, what comes from the state in
    front to it or later, what goes from before it to the state behind, and the state's own way through the chunk.
    """
    through = 0.0
    for n in range(keys):
        through += float(get(dtotal + FLOAT * n))
    leaving = 0.0
    for t in range(steps):
        leaving += float(get(until + FLOAT * t))
    behind = 0.0
    for t in range(steps - 1, -1, -1):
        at = FLOAT * t
        behind += float(get(later + at)) - float(get(earlier + at)) + float(get(since + at))
        leaving -= float(get(until + at))
        put(target + at, np.float32(behind + leaving + through))


@part
def fold_products(dproducts: int, chunk: int, q: int, k: int, rows: int, wide: int, dq: int, dk: int) -> None:
    """dq += dproducts k, dk += dproductsᵀ q."""
    for i in range(0, rows, LANES):
        here = FLOAT * i * wide
        multiply(dq + here, wide, LANES, wide, dproducts + FLOAT * i * chunk, chunk, 1, k, wide, i + LANES, ADD, 0)
        mine = dproducts + FLOAT * (i * chunk + i)
        multiply(dk + here, wide, LANES, wide, mine, 1, chunk, q + here, wide, rows - i, ADD, 0)


@part
def fold_keys(
    q: int, k: int, decay: int, since: int, until: int, ks: int, dqs: int, dks: int, dscores: int, chunk: int,
    dtotal: int, steps: int, wide: int, dq: int, dk: int, dg: int,
) -> None:  # fmt: skip
    """dq, dk, dg (steps, keys) where every key has a decay; adds to dq and dk, which start as zeros.

    The pairs of a step with itself are added last: they do not depend on a decay, and in dg would have to cancel.
    """
    for n in range(0, wide, LANES):
        at = FLOAT * n
        for s in range(steps - 1):
            p = load(k + at + FLOAT * s * wide)
            for t in range(s + 1, steps):
                here = at + FLOAT * t * wide
                p = p * load(decay + here)
                store(dq + here, fma(p, broadcast(dscores + FLOAT * (t * chunk + s)), load(dq + here)))
        for t in range(1, steps):
            r = load(q + at + FLOAT * t * wide)
            for s in range(t - 1, -1, -1):
                here = at + FLOAT * s * wide
                r = r * load(decay + here + FLOAT * wide)
                store(dk + here, fma(r, broadcast(dscores + FLOAT * (t * chunk + s)), load(dk + here)))
        leaving, behind = load(dtotal + at), splat(0.0)
        for t in range(steps):
            here = at + FLOAT * t * wide
            store(dg + here, leaving)
            leaving = fma(load(ks + here), load(dks + here), leaving)
        for t in range(steps - 1, -1, -1):
            here = at + FLOAT * t * wide
            q_v, k_v = load(q + here), load(k + here)
            dq_v = fma(load(since + here), load(dqs + here), load(dq + here))
            behind = behind + q_v * dq_v - k_v * load(dk + here)
            store(dg + here, load(dg + here) + behind)
            self_v = broadcast(dscores + FLOAT * (t * chunk + t))
            store(dq + here, fma(self_v, k_v, dq_v))
            store(dk + here, fma(self_v, q_v, fma(load(until + here), load(dks + here), load(dk + here))))


@part
def finish_ssd(
    stored: float, dt_stored: float,
    x: int, x_t: int, dy: int, dv: int, weight: int, dlog: int, dt: int, dt_t: int, rate: float, bias: float,
    skip: float, soft: int, low: float, high: float, steps: int, values: int, sums: int, dx: int, dx_t: int,
    ddt: int, ddt_t: int, dA: int, dD: int, dbias: int,
) -> None:  # fmt: skip
    """Mamba-2's own inputs: dx and ddt of a chunk of a head; dA, dD, dbias, a number each, accumulate."""
    V, skips, wide = padded(values), splat(0.0), size_of(stored)
    for t in range(steps):
        factor, dot = broadcast(weight + FLOAT * t), splat(0.0)
        for p in range(0, values, LANES):
            x_v = read(stored, x + wide * (t * x_t + p), values - p)
            dy_v, dv_v = load(dy + FLOAT * (t * V + p)), load(dv + FLOAT * (t * V + p))
            dot = fma(x_v, dv_v, dot)
            skips = fma(x_v, dy_v, skips)
            write(stored, dx + wide * (t * dx_t + p), fma(dv_v, factor, dy_v * skip), values - p)
        store(sums + VECTOR * t, dot)
    for t in range(steps, padded(steps)):
        store(sums + VECTOR * t, splat(0.0))
    buffer = sums + VECTOR * padded(steps)
    store(buffer, skips)
    total_D, total_A, total_bias = 0.0, 0.0, 0.0
    for lane in range(LANES):
        total_D += float(get(buffer + FLOAT * lane))
    for start in range(0, steps, LANES):
        count = min(LANES, steps - start)
        for i in range(LANES):
            raw = read_one(dt_stored, dt + size_of(dt_stored) * (start + i) * dt_t) if i < count else np.float32(0.0)
            put(buffer + FLOAT * i, np.float32(raw + bias))
        raw_v = load(buffer)
        store(buffer + VECTOR, sum_lanes(sums + VECTOR * start))
        store(buffer, sigmoid(raw_v))
        store(buffer + 2 * VECTOR, softplus(raw_v) if soft else raw_v)
        for i in range(count):
            step = float(get(weight + FLOAT * (start + i)))
            d = float(get(dlog + FLOAT * (start + i)))
            total_A += d * step
            d = d * rate + float(get(buffer + VECTOR + FLOAT * i))
            free = float(get(buffer + 2 * VECTOR + FLOAT * i))
            if free < low or free > high:
                d = 0.0
            if soft:
                d *= float(get(buffer + FLOAT * i))
            total_bias += d
            put(ddt + FLOAT * (start + i) * ddt_t, np.float32(d))
    put(dA, np.float32(get(dA) + total_A))
    put(dD, np.float32(get(dD) + total_D))
    put(dbias, np.float32(get(dbias) + total_bias))
