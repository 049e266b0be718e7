"""One step of softmax attention on a cache of keys and values, of which only the filled slots are read.

B rows, G groups of heads that share keys and values, K channels of a key, V of a value, S slots of the cache: the step
at position p lies in slot p % S. A score is kept in base 2.
"""

from __future__ import annotations

import numpy as np

from helix_plugin_cpu.kernels._decode_step import total_of
from helix_plugin_cpu.kernels._instructions import ATTEND, word
from helix_plugin_cpu.kernels._jit import inline
from helix_plugin_cpu.kernels._math import LOG2_E, canonical, exp2, maximum
from helix_plugin_cpu.kernels._memory import FLOAT, get, get_int
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    broadcast,
    fma,
    keep_first,
    load_first,
    splat,
    store,
    store_first,
    sum_lanes,
)
from helix_plugin_cpu.kernels._ternary import largest_lane

PARTS = LANES * VECTOR
"""Bytes of scratch for the partial sums of sixteen scores."""


def scratch_of(slots: int) -> int:
    """Bytes of scratch that a thread needs."""
    return PARTS + FLOAT * -(-slots // LANES) * LANES


@inline
def attend_step(i: int, first: int, last: int, scratch: int) -> None:
    """ATTEND for groups first..last-1 of all B G."""
    G, heads, K, V = word(i, ATTEND.groups), word(i, ATTEND.heads), word(i, ATTEND.d_key), word(i, ATTEND.d_value)
    S, scale = word(i, ATTEND.size), splat(get(word(i, ATTEND.scale)) * LOG2_E)
    for job in range(first, last):
        row, group = job // G, job % G
        position = get_int(word(i, ATTEND.position) + 8 * row)
        keys = word(i, ATTEND.keys) + FLOAT * (row * S * G + group) * K
        values = word(i, ATTEND.values) + FLOAT * (row * S * G + group) * V
        slot, filled = position % S, min(position + 1, S)
        k = word(i, ATTEND.k) + word(i, ATTEND.k_row) * row + word(i, ATTEND.k_head) * group
        v = word(i, ATTEND.v) + word(i, ATTEND.v_row) * row + word(i, ATTEND.v_head) * group
        copy_row(k, keys + FLOAT * slot * G * K, K)
        copy_row(v, values + FLOAT * slot * G * V, V)
        for head in range(group * heads, (group + 1) * heads):
            q = word(i, ATTEND.q) + word(i, ATTEND.q_row) * row + word(i, ATTEND.q_head) * head
            total = weigh(q, keys, FLOAT * G * K, K, filled, scale, scratch + PARTS, scratch)
            y = word(i, ATTEND.y) + word(i, ATTEND.y_row) * row + FLOAT * V * head
            mix(scratch + PARTS, values, FLOAT * G * V, V, filled, total, y)


@inline
def copy_row(source: int, target: int, size: int) -> None:
    """Copy `size` floats from `source` to `target`."""
    for at in range(0, size, LANES):
        store_first(target + FLOAT * at, load_first(source + FLOAT * at, size - at), size - at)


@inline
def weigh(q: int, keys: int, step: int, K: int, filled: int, scale: float, weights: int, parts: int) -> float:
    """Write 2^(score - largest score) of each slot; returns their sum."""
    highest = splat(-np.inf)
    for begin in range(0, filled, LANES):
        count = filled - begin
        for lane in range(min(count, LANES)):
            key, products = keys + step * (begin + lane), splat(0.0)
            for at in range(0, K, LANES):
                products = fma(load_first(q + FLOAT * at, K - at), load_first(key + FLOAT * at, K - at), products)
            store(parts + VECTOR * lane, products)
        scores = sum_lanes(parts) * scale
        store_first(weights + FLOAT * begin, scores, count)
        highest = maximum(highest, keep_first(scores, count, -np.inf))
    offset, total = splat(largest_lane(highest)), splat(0.0)
    for begin in range(0, filled, LANES):
        count = filled - begin
        weight = keep_first(exp2(canonical(load_first(weights + FLOAT * begin, count) - offset)), count, 0.0)
        store_first(weights + FLOAT * begin, weight, count)
        total = total + weight
    return total_of(total, parts)


@inline
def mix(weights: int, values: int, step: int, V: int, filled: int, total: float, y: int) -> None:
    """y (V,) = the values of the filled slots times their weights, over their total. Four vectors at a time."""
    share = splat(1.0 / total)
    for at in range(0, V, 4 * LANES):
        left, place = V - at, FLOAT * at
        y0, y1, y2, y3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for s in range(filled):
            weight, value = broadcast(weights + FLOAT * s), values + step * s + place
            y0 = fma(weight, load_first(value, left), y0)
            y1 = fma(weight, load_first(value + VECTOR, left - LANES), y1)
            y2 = fma(weight, load_first(value + 2 * VECTOR, left - 2 * LANES), y2)
            y3 = fma(weight, load_first(value + 3 * VECTOR, left - 3 * LANES), y3)
        store_first(y + place, y0 * share, left)
        store_first(y + place + VECTOR, y1 * share, left - LANES)
        store_first(y + place + 2 * VECTOR, y2 * share, left - 2 * LANES)
        store_first(y + place + 3 * VECTOR, y3 * share, left - 3 * LANES)
