"""A chunk of linear attention in a thread's scratch memory: where everything lies, and how it gets there."""

from __future__ import annotations

import numpy as np

from helix_plugin_cpu.kernels._jit import inline, part
from helix_plugin_cpu.kernels._linear_attention_parts import (
    EACH_KEY,
    SSD,
    head_decays,
    key_decays,
    key_scores,
    lower_times,
    pack,
    padded,
    pair_decays,
    products,
    scale_each,
    scale_rows,
)
from helix_plugin_cpu.kernels._memory import FLOAT, put
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, splat, store


def round_up(n: int) -> int:
    """`padded`, in Python."""
    return -(-n // LANES) * LANES


def chunk_scratch(keys: int, values: int, chunk: int) -> int:
    """Bytes from `work` that a chunk takes."""
    K, V = round_up(keys), round_up(values)
    return FLOAT * (2 * LANES + 5 * chunk + K + 9 * chunk * K + 2 * chunk * V + 3 * chunk * chunk) + VECTOR * LANES**2


@inline
def small(work: int, chunk: int) -> tuple[int, int, int, int, int, int, int, int]:
    """Addresses of ones, a vector to spare, weight, upper, lower, since, until (a number for each step), total."""
    at = work + 2 * VECTOR
    step = FLOAT * chunk
    return work, work + VECTOR, at, at + step, at + 2 * step, at + 3 * step, at + 4 * step, at + 5 * step


@inline
def by_key(work: int, chunk: int, K: int) -> tuple[int, int, int, int, int, int, int, int, int]:
    """Addresses of q, k, q decayed since the start, k decayed until the end, kᵀ; decay, since, until, upper.

    The last four only where every key has a decay of its own.
    """
    at = work + 2 * VECTOR + FLOAT * (5 * chunk + K)
    step = FLOAT * chunk * K
    return (
        at, at + step, at + 2 * step, at + 3 * step, at + 4 * step,
        at + 5 * step, at + 6 * step, at + 7 * step, at + 8 * step,
    )  # fmt: skip


@inline
def by_value(work: int, chunk: int, K: int, V: int) -> tuple[int, int, int, int, int, int]:
    """Addresses of v, y, q kᵀ, the decays of pairs, scores, and 256 vectors to spare."""
    at = work + 2 * VECTOR + FLOAT * (5 * chunk + K + 9 * chunk * K)
    step, square = FLOAT * chunk * V, FLOAT * chunk * chunk
    pairs = at + 2 * step
    return at, at + step, pairs, pairs + square, pairs + 2 * square, pairs + 3 * square


@part
def prepare_chunk(
    stored: float, work: int, chunk: int, q: int, q_t: int, k: int, k_t: int, steps: int, keys: int, values: int,
    kind: int, scale: float,
) -> float:  # fmt: skip
    """Pack q, times the scale, and k; their products. NaN unless all is finite."""
    K = padded(keys)
    one_l, spare_l = small(work, chunk)[:2]
    q_l, k_l, _, _, turned_l = by_key(work, chunk, K)[:5]
    put(one_l, np.float32(1.0))
    put(one_l + FLOAT, np.float32(scale))
    sound = pack(stored, q, q_t, steps, keys, one_l + FLOAT, 0, q_l, spare_l)
    sound += pack(stored, k, k_t, steps, keys, one_l, 0, k_l, spare_l)
    if kind != EACH_KEY:
        products_l = by_value(work, chunk, K, padded(values))[2]
        products(q_l, k_l, turned_l, padded(steps), K, keys, products_l, chunk)
    return sound


@part
def prepare_head(
    stored: float, g_stored: float, work: int, chunk: int, v: int, v_t: int, g: int, g_t: int, rate: float, bias: float,
    soft: int, low: float, high: float, steps: int, keys: int, values: int, kind: int, scores: int,
) -> float:  # fmt: skip
    """A head's decays, its packed v (times Δ for SSD), decayed k and, if asked for, decayed q and scores.

    NaN unless decays and v are finite.
    """
    K, V, rows = padded(keys), padded(values), padded(steps)
    one_l, spare_l, weight_l, upper_l, lower_l, since_l, until_l, total_l = small(work, chunk)
    q_l, k_l, qs_l, ks_l, turned_l, decay_k, since_k, until_k, upper_k = by_key(work, chunk, K)
    v_l, _, products_l, gaps_l, scores_l, sums_l = by_value(work, chunk, K, V)
    if kind == EACH_KEY:
        fine = key_decays(g_stored, g, g_t, steps, keys, decay_k, since_k, until_k, total_l, upper_k, turned_l, spare_l)
        scale_each(k_l, rows * K, until_k, ks_l)
        if scores:
            scale_each(q_l, rows * K, since_k, qs_l)
            key_scores(q_l, k_l, decay_k, steps, K, sums_l, scores_l, chunk)
    else:
        fine = head_decays(
            kind, g_stored, g, g_t, rate, bias, soft, low, high, steps, weight_l, upper_l, lower_l, since_l, until_l
        )
        for n in range(0, K, LANES):
            store(total_l + FLOAT * n, splat(fine))
        scale_rows(k_l, rows, K, until_l, ks_l)
        if scores:
            scale_rows(q_l, rows, K, since_l, qs_l)
            pair_decays(upper_l, lower_l, steps, gaps_l, chunk)
            lower_times(products_l, gaps_l, chunk, rows, scores_l)
    if kind == SSD:
        return fine + pack(stored, v, v_t, steps, values, weight_l, 1, v_l, spare_l)
    return fine + pack(stored, v, v_t, steps, values, one_l, 0, v_l, spare_l)
