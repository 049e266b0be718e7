"""One step of the ops that carry a state or normalise a row, for a few rows at a time.

D channels, K taps of a convolution, N states per channel; A, B and C are those of the selective scan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from helix_plugin_cpu.kernels._instructions import CONV, GATHER, NORM, SCAN, word
from helix_plugin_cpu.kernels._integers import GROUP, bfloat16_at, high_bfloat16, integers_at, low_bfloat16
from helix_plugin_cpu.kernels._jit import inline
from helix_plugin_cpu.kernels._math import canonical, exp2, sigmoid, softplus
from helix_plugin_cpu.kernels._memory import FLOAT, get, get_flag, get_int, put
from helix_plugin_cpu.kernels._products import BFLOAT16, BLOCK, BLOCK_BYTES, FLOAT32
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    Vec,
    broadcast,
    fma,
    load_first,
    splat,
    store,
    store_first,
    sum_lanes,
)


@inline
def total_of(vector: Vec, scratch: int) -> float:
    """The sum of the lanes; `scratch` takes a vector."""
    store(scratch, vector)
    result = 0.0
    for lane in range(LANES):
        result += get(scratch + FLOAT * lane)
    return result


@inline
def norm_step(i: int, first: int, last: int, scratch: int) -> None:
    """NORM on rows first..last-1."""
    centred, D, eps = word(i, NORM.centred), word(i, NORM.channels), get(word(i, NORM.eps))
    x, x_row = word(i, NORM.x), word(i, NORM.x_row)
    residual, residual_row = word(i, NORM.residual), word(i, NORM.residual_row)
    weight, bias = word(i, NORM.weight), word(i, NORM.bias)
    y, y_row = word(i, NORM.y), word(i, NORM.y_row)
    sums, sums_row = word(i, NORM.sums), word(i, NORM.sums_row)
    for row in range(first, last):
        source = x + x_row * row
        target = y + y_row * row
        if residual != 0:
            for d in range(0, D, LANES):
                at = FLOAT * d
                both = load_first(source + at, D - d) + load_first(residual + residual_row * row + at, D - d)
                store_first(sums + sums_row * row + at, both, D - d)
            source = sums + sums_row * row
        mean = 0.0
        if centred:
            total = splat(0.0)
            for d in range(0, D, LANES):
                total = total + load_first(source + FLOAT * d, D - d)
            mean = total_of(total, scratch) / D
        squares = splat(0.0)
        for d in range(0, D, LANES):
            value = load_first(source + FLOAT * d, D - d) - mean
            store_first(target + FLOAT * d, value, D - d)
            if D - d >= LANES:
                squares = fma(value, value, squares)
            else:
                # Lanes behind the row hold -mean.
                value = load_first(target + FLOAT * d, D - d)
                squares = fma(value, value, squares)
        scale = splat(1.0 / np.sqrt(total_of(squares, scratch) / D + eps))
        for d in range(0, D, LANES):
            at = FLOAT * d
            value = load_first(target + at, D - d) * scale * load_first(weight + at, D - d)
            if bias != 0:
                value = value + load_first(bias + at, D - d)
            store_first(target + at, value, D - d)


@inline
def conv_step(i: int, lo: int, hi: int) -> None:
    """CONV on channels lo..hi-1."""
    batch, K, D, silu = word(i, CONV.batch), word(i, CONV.taps), word(i, CONV.channels), word(i, CONV.silu)
    x, x_row = word(i, CONV.x), word(i, CONV.x_row)
    weight, bias = word(i, CONV.weight), word(i, CONV.bias)
    before, after = word(i, CONV.before), word(i, CONV.after)
    y, y_row = word(i, CONV.y), word(i, CONV.y_row)
    for b in range(batch):
        state = FLOAT * b * (K - 1) * D
        for d in range(lo, hi, LANES):
            at, left = FLOAT * d, hi - d
            value = load_first(x + x_row * b + at, left)
            total = value * load_first(weight + FLOAT * (K - 1) * D + at, left)
            if bias != 0:
                total = total + load_first(bias + at, left)
            for k in range(K - 1):
                row = state + FLOAT * k * D + at
                old = load_first(before + row, left)
                total = fma(old, load_first(weight + FLOAT * k * D + at, left), total)
                if k > 0:
                    store_first(after + row - FLOAT * D, old, left)
            if K > 1:
                store_first(after + state + FLOAT * (K - 2) * D + at, value, left)
            if silu:
                total = total * sigmoid(total)
            store_first(y + y_row * b + at, total, left)


@inline
def scan_step(i: int, lo: int, hi: int, scratch: int) -> None:
    """SCAN on channels lo..hi-1."""
    batch, N, D = word(i, SCAN.batch), word(i, SCAN.d_state), word(i, SCAN.channels)
    u, u_row = word(i, SCAN.u), word(i, SCAN.u_row)
    delta, delta_row = word(i, SCAN.delta), word(i, SCAN.delta_row)
    A, B, B_row, C, C_row = (
        word(i, SCAN.A), word(i, SCAN.B), word(i, SCAN.B_row), word(i, SCAN.C), word(i, SCAN.C_row)
    )  # fmt: skip
    skip, bias, soft = word(i, SCAN.skip), word(i, SCAN.bias), word(i, SCAN.softplus)
    z, z_row = word(i, SCAN.z), word(i, SCAN.z_row)
    before, after = word(i, SCAN.before), word(i, SCAN.after)
    y, y_row = word(i, SCAN.y), word(i, SCAN.y_row)
    products = scratch + LANES * VECTOR
    for b in range(batch):
        for d in range(lo, hi, LANES):
            at, left = FLOAT * d, hi - d
            u_v = load_first(u + u_row * b + at, left)
            dt = load_first(delta + delta_row * b + at, left)
            if bias != 0:
                dt = dt + load_first(bias + at, left)
            if soft:
                dt = softplus(dt)
            store(products, dt)
            store(products + VECTOR, dt * u_v)
            for lane in range(min(left, LANES)):
                row = FLOAT * (d + lane) * N
                state = FLOAT * b * D * N + row
                dt_v, du_v = broadcast(products + FLOAT * lane), broadcast(products + VECTOR + FLOAT * lane)
                total = splat(0.0)
                for n in range(0, N, LANES):
                    here, rest = FLOAT * n, N - n
                    decay = exp2(canonical(load_first(A + row + here, rest) * dt_v))
                    h = fma(
                        decay, load_first(before + state + here, rest), du_v * load_first(B + B_row * b + here, rest)
                    )
                    store_first(after + state + here, h, rest)
                    # Lanes behind N hold 0 unless du is not finite.
                    total = fma(load_first(after + state + here, rest), load_first(C + C_row * b + here, rest), total)
                store(scratch + VECTOR * lane, total)
            result = sum_lanes(scratch)
            if skip != 0:
                result = fma(u_v, load_first(skip + at, left), result)
            if z != 0:
                gate = load_first(z + z_row * b + at, left)
                result = result * (gate * sigmoid(gate))
            store_first(y + y_row * b + at, result, left)


@inline
def byte_at(block: int, column: int, lane: int) -> Any:
    """One weight of a block of sixteen rows and 64 columns."""
    scale = bfloat16_at(block + VECTOR * (BLOCK // 4) + FLOAT * lane + 2 * (column // GROUP))
    return (get_flag(block + VECTOR * (column // 4) + FLOAT * lane + column % 4) - 128) * scale


@inline
def gather_step(i: int, first: int, last: int) -> None:
    """GATHER of rows first..last-1."""
    kind, tokens, D = word(i, GATHER.kind), word(i, GATHER.tokens), word(i, GATHER.channels)
    w, w_row = word(i, GATHER.w), word(i, GATHER.w_row)
    y, y_row = word(i, GATHER.y), word(i, GATHER.y_row)
    blocks = -(-D // BLOCK)
    for b in range(first, last):
        token = get_int(tokens + 8 * b)
        target = y + y_row * b
        if kind == FLOAT32:
            for d in range(0, D, LANES):
                store_first(target + FLOAT * d, load_first(w + w_row * token + FLOAT * d, D - d), D - d)
        elif kind == BFLOAT16:
            for d in range(0, D, 2 * LANES):
                words = integers_at(w + w_row * token + 2 * d)
                store_first(target + FLOAT * d, low_bfloat16(words), D - d)
                if D - d > LANES:
                    store_first(target + FLOAT * d + VECTOR, high_bfloat16(words), D - d - LANES)
        else:
            tile, lane = w + token // LANES * blocks * BLOCK_BYTES, token % LANES
            for d in range(D):
                block, c = tile + d // BLOCK * BLOCK_BYTES, d % BLOCK
                put(target + FLOAT * d, byte_at(block, c, lane))
