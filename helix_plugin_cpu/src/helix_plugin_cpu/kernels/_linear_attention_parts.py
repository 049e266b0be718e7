"""Parts of linear attention that forward and backward share: rows in and out, decays, scores.

A chunk lies in a thread's scratch memory as matrices padded with zeros to multiples of sixteen. Exponents are in
units of log 2 and kept as pairs of floats (high, low), since a difference of two large ones must keep its digits.
"""

from __future__ import annotations

import numpy as np

from helix_plugin_cpu.kernels._blocks import NAN
from helix_plugin_cpu.kernels._jit import inline, part
from helix_plugin_cpu.kernels._math import LOG2_E, bounded, canonical, exp2, softplus
from helix_plugin_cpu.kernels._matmul import ADD, ZERO, multiply, transpose
from helix_plugin_cpu.kernels._memory import FLOAT, get, put
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    Vec,
    broadcast,
    fma,
    load,
    load_first,
    splat,
    store,
    store_first,
    sum_lanes,
)
from helix_plugin_cpu.kernels._storage import read, read_one, size_of, write

EACH_HEAD, SSD, EACH_KEY = 0, 1, 2
"""Kinds of decay: a logarithm for each head, Mamba-2's Δ A, a logarithm for each key."""

FORGOTTEN = -300.0
"""log2 of a decay below it is held here: no float32 survives it."""


@inline
def padded(n: int) -> int:
    """The next multiple of sixteen."""
    return (n + LANES - 1) // LANES * LANES


@inline
def lane_total(vector: Vec, buffer: int) -> float:
    """The sum of the lanes; `buffer` takes a vector."""
    store(buffer, vector)
    result = np.float32(0.0)
    for lane in range(LANES):
        result += get(buffer + FLOAT * lane)
    return float(result)


@part
def pack(
    stored: float,
    source: int,
    row: int,
    steps: int,
    width: int,
    factors: int,
    factor_step: int,
    target: int,
    buffer: int,
) -> float:
    """(steps, width) with rows `row` elements apart, each times its factor -> padded; NaN unless all is finite."""
    wide = padded(width)
    check = splat(0.0)
    for t in range(steps):
        factor = broadcast(factors + FLOAT * factor_step * t)
        for d in range(0, wide, LANES):
            x = read(stored, source + size_of(stored) * (t * row + d), width - d)
            scaled = x * factor
            check = fma(scaled, splat(0.0), check)
            store(target + FLOAT * (t * wide + d), scaled)
    for i in range(steps * wide, padded(steps) * wide, LANES):
        store(target + FLOAT * i, splat(0.0))
    return lane_total(check, buffer)


@part
def unpack(source: int, wide: int, steps: int, width: int, factor: float, stored: float, target: int, row: int) -> None:
    """The way back: padded rows -> (steps, width) with rows `row` elements apart, times a factor."""
    for t in range(steps):
        for d in range(0, width, LANES):
            found = load(source + FLOAT * (t * wide + d)) * factor
            write(stored, target + size_of(stored) * (t * row + d), found, width - d)


@part
def head_decays(
    kind: int, stored: float, g: int, g_t: int, rate: float, bias: float, soft: int, low: float, high: float,
    steps: int, weight: int, upper: int, lower: int, since: int, until: int,
) -> float:  # fmt: skip
    """The decays of a head that has one number for each step; g is that number's logarithm, or dt for SSD.

    weight = Δ, or ones; (upper, lower) = c, the sum of logarithms; since = 2^c, until = 2^(c_end - c), all (steps,)
    padded with zeros. Returns 2^c_end, or NaN if anything is not finite.
    """
    wide = padded(steps)
    for t in range(wide):
        put(
            weight + FLOAT * t,
            np.float32(read_one(stored, g + size_of(stored) * g_t * t) + bias) if t < steps else np.float32(0.0),
        )
    if kind == SSD:
        for t in range(0, wide, LANES):
            dt = canonical(load(weight + FLOAT * t))
            dt = softplus(dt) if soft else dt
            store_first(weight + FLOAT * t, bounded(dt, low, high), steps - t)
    total = 0.0
    for t in range(wide):
        if t < steps:
            x = float(get(weight + FLOAT * t)) * rate * LOG2_E
            if x < FORGOTTEN:
                x = FORGOTTEN
            total += x
            if kind == EACH_HEAD:
                put(weight + FLOAT * t, np.float32(1.0))
        head = np.float32(total)
        put(upper + FLOAT * t, head)
        put(lower + FLOAT * t, np.float32(total - head))
    end, rest = np.float32(total), np.float32(total - np.float32(total))
    for t in range(0, wide, LANES):
        at = FLOAT * t
        store(since + at, splat(0.0))
        store(until + at, splat(0.0))
        store_first(since + at, exp2(canonical(load(upper + at) + load(lower + at))), steps - t)
        gap = (float(end) - load(upper + at)) + (float(rest) - load(lower + at))
        store_first(until + at, exp2(canonical(gap)), steps - t)
    return float(get(since + FLOAT * (steps - 1))) if total - total == 0.0 else float(NAN)


@part
def key_decays(
    stored: float, g: int, g_t: int, steps: int, keys: int, decay: int, since: int, until: int, total: int, upper: int,
    lower: int, buffer: int,
) -> float:  # fmt: skip
    """The same where every key has its own: decay = 2^(log of a step), since and until (steps, keys) padded.

    total (keys,) is the whole chunk's decay. Returns NaN if anything is not finite.
    """
    wide = padded(keys)
    check = splat(0.0)
    for n in range(0, wide, LANES):
        head, rest = splat(0.0), splat(0.0)
        for t in range(steps):
            at = FLOAT * (t * wide + n)
            x = read(stored, g + size_of(stored) * (t * g_t + n), keys - n) * LOG2_E
            x = bounded(canonical(x), FORGOTTEN, 1e30)
            check = fma(x, splat(0.0), check)
            store(decay + at, exp2(x))
            new = head + x
            back = new - head
            rest = rest + ((head - (new - back)) + (x - back))
            head = new
            store(upper + at, head)
            store(lower + at, rest)
            store(since + at, exp2(canonical(head + rest)))
        for t in range(steps):
            at = FLOAT * (t * wide + n)
            store(until + at, exp2(canonical((head - load(upper + at)) + (rest - load(lower + at)))))
        store(total + FLOAT * n, exp2(canonical(head + rest)))
    for i in range(steps * wide, padded(steps) * wide, LANES):
        for target in (decay, since, until):
            store(target + FLOAT * i, splat(0.0))
    return lane_total(check, buffer)


@part
def scale_rows(source: int, rows: int, wide: int, factors: int, target: int) -> None:
    """Each row of (rows, wide) times its factor."""
    for t in range(rows):
        factor = broadcast(factors + FLOAT * t)
        for n in range(0, wide, LANES):
            at = FLOAT * (t * wide + n)
            store(target + at, load(source + at) * factor)


@part
def scale_each(source: int, count: int, factors: int, target: int) -> None:
    """`count` floats, each times its factor."""
    for i in range(0, count, LANES):
        store(target + FLOAT * i, load(source + FLOAT * i) * load(factors + FLOAT * i))


@part
def products(q: int, k: int, turned: int, rows: int, wide: int, depth: int, scores: int, scores_row: int) -> None:
    """q kᵀ on and below the diagonal, in blocks of sixteen; `turned` takes kᵀ."""
    transpose(k, wide, rows, wide, turned, rows)
    for i in range(0, rows, LANES):
        strip = scores + FLOAT * i * scores_row
        multiply(strip, scores_row, LANES, i + LANES, q + FLOAT * i * wide, wide, 1, turned, rows, depth, ZERO, 0)


@part
def pair_decays(upper: int, lower: int, steps: int, target: int, row: int) -> None:
    """target[t, s] = 2^(c_t - c_s) for s <= t, zeros behind, in the blocks on and below the diagonal."""
    for t in range(padded(steps)):
        head, rest = broadcast(upper + FLOAT * t), broadcast(lower + FLOAT * t)
        for s in range(0, t + 1, LANES):
            at = target + FLOAT * (t * row + s)
            gap = exp2((head - load(upper + FLOAT * s)) + (rest - load(lower + FLOAT * s)))
            if t < s + LANES - 1 or t >= steps:
                store(at, splat(0.0))
            store_first(at, gap, t + 1 - s if t < steps else 0)


@part
def lower_times(a: int, b: int, row: int, rows: int, target: int) -> None:
    """Elementwise product of matrices whose blocks on and below the diagonal count."""
    for t in range(rows):
        for s in range(0, t + 1, LANES):
            at = FLOAT * (t * row + s)
            store(target + at, load(a + at) * load(b + at))


@part
def key_scores(q: int, k: int, decay: int, steps: int, wide: int, sums: int, scores: int, row: int) -> None:
    """scores[t, s] = Σ_n q_t k_s Π decay over s < i <= t, for s <= t < steps <= 16, zeros elsewhere.

    The product grows with t and is never divided: no exponent of a positive number, whatever the decay.
    """
    for i in range(LANES * LANES):
        store(sums + VECTOR * i, splat(0.0))
    for n in range(0, wide, LANES):
        for s in range(steps):
            p = load(k + FLOAT * (s * wide + n))
            for t in range(s, steps):
                if t > s:
                    p = p * load(decay + FLOAT * (t * wide + n))
                at = sums + VECTOR * (t * LANES + s)
                store(at, fma(load(q + FLOAT * (t * wide + n)), p, load(at)))
    for t in range(LANES):
        store(scores + FLOAT * t * row, sum_lanes(sums + VECTOR * t * LANES))


@part
def advance(state: int, k: int, v: int, steps: int, keys: int, values: int, decay: int) -> None:
    """S = diag(decay) S + kᵀ v: the state behind a chunk, k decayed to its end. keys and values padded."""
    multiply(state, values, keys, values, k, 1, keys, v, values, steps, 2, decay)


@part
def attend(q: int, state: int, scores: int, scores_row: int, v: int, rows: int, keys: int, values: int, y: int) -> None:
    """y = q S + scores v, scores zero above the diagonal."""
    multiply(y, values, rows, values, q, keys, 1, state, values, keys, ZERO, 0)
    for i in range(0, rows, LANES):
        strip = y + FLOAT * i * values
        multiply(
            strip, values, LANES, values, scores + FLOAT * i * scores_row, scores_row, 1, v, values, i + LANES, ADD, 0
        )


@part
def one_step(
    state: int, state_row: int, target: int, target_row: int, q: int, k: int, v: int, decay: int, decay_step: int,
    keys: int, values: int, y: int,
) -> None:  # fmt: skip
    """target = diag(decay) state + k vᵀ and y = targetᵀ q. state, unless it is 0, and target have (keys, values)."""
    for p in range(0, values, LANES):
        store_first(y + FLOAT * p, splat(0.0), values - p)
    for n in range(keys):
        k_v, q_v, decay_v = (
            broadcast(k + FLOAT * n),
            broadcast(q + FLOAT * n),
            broadcast(decay + FLOAT * decay_step * n),
        )
        for p in range(0, values, LANES):
            s = k_v * load_first(v + FLOAT * p, values - p)
            if state != 0:
                s = fma(load_first(state + FLOAT * (n * state_row + p), values - p), decay_v, s)
            store_first(target + FLOAT * (n * target_row + p), s, values - p)
            store_first(y + FLOAT * p, fma(s, q_v, load_first(y + FLOAT * p, values - p)), values - p)
