"""BitNet's linear map on the CPU: weights stay two bits in memory, products are of integers.

A single row of activations, which decoding has, takes the time of reading the weights: a sixteenth of float32's.
Source: Ma et al., The Era of 1-bit LLMs, 2024 (BitNet b1.58).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from helix_core.ops import OPS
from helix_core.ops.bit_linear import LEVELS, SMALLEST, check_shapes
from helix_plugin_cpu.kernels._arguments import address, check, empty, single
from helix_plugin_cpu.kernels._integers import integers_at, no_integers, sum_integers
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._memory import (
    FLOAT,
    get,
    get_flag,
    get_int,
    prefetch,
    put,
    put_flag,
    put_int,
    take_job,
)
from helix_plugin_cpu.kernels._simd import LANES, fma, load_first, splat
from helix_plugin_cpu.kernels._ternary import (
    CHUNK,
    CHUNK_LEVELS,
    PLANES,
    add_ternary,
    larger_sizes,
    largest_lane,
    sum_floats,
    write_levels,
)
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import dense
from helix_plugin_torch.operators import inference_operator

TILE = 64
"""Outputs of a job."""
AHEAD = 4096
"""Bytes of weights that are asked for before their turn."""
INFO = 16
"""Bytes behind the levels of a row: their sum (int64) and what one is worth (float)."""
Sums = Any  # four of them


@inline
def levels_bytes(plane: int) -> int:
    """Bytes of the levels of a row, chunk by chunk, four planes each."""
    return -(-plane // CHUNK) * CHUNK_LEVELS


@kernel
def level_jobs(counter: int, jobs: int, scratch: int, x: int, scale: int, levels: int, K: int, plane: int) -> None:
    """A row of x (M, K) a job: its levels, then INFO."""
    while True:
        row = take_job(counter)
        if row >= jobs:
            return
        at = x + FLOAT * K * row
        sizes, taint = splat(0.0), splat(0.0)
        for k in range(0, K, LANES):
            value = load_first(at + FLOAT * k, K - k)
            sizes, taint = larger_sizes(sizes, value), fma(value, splat(0.0), taint)
        s = np.float32(LEVELS) / max(largest_lane(sizes), np.float32(SMALLEST))
        total = 0
        target = levels + row * (levels_bytes(plane) + INFO)
        for j in range(0, plane, CHUNK):
            for p in range(PLANES):
                k = p * plane + j
                total += write_levels(at + FLOAT * k, min(min(CHUNK, plane - j), K - k), s, target)
                target += 2 * CHUNK
        put_int(target, total)
        put(target + 8, get(scale) / s + sum_floats(taint))  # NaN where x is not finite


@inline
def whole_chunk(at: int, end: int, scratch: int) -> int:
    """Where the 64 bytes at `at` can be read: there, or in the scratch where memory ends before."""
    if at + CHUNK <= end:
        return at
    for i in range(end - at):
        put_flag(scratch + i, get_flag(at + i))
    return scratch


@inline
def four_columns(w0: int, w1: int, w2: int, w3: int, x: int, plane: int, end: int, scratch: int) -> Sums:
    """Four rows of weights times one of levels."""
    a, b, c, d = no_integers(), no_integers(), no_integers(), no_integers()
    j = 0
    while j + CHUNK <= plane:
        prefetch(w0 + j + AHEAD)
        prefetch(w1 + j + AHEAD)
        prefetch(w2 + j + AHEAD)
        prefetch(w3 + j + AHEAD)
        a = add_ternary(a, integers_at(w0 + j), x)
        b = add_ternary(b, integers_at(w1 + j), x)
        c = add_ternary(c, integers_at(w2 + j), x)
        d = add_ternary(d, integers_at(w3 + j), x)
        j += CHUNK
        x += CHUNK_LEVELS
    if j < plane:
        a = add_ternary(a, integers_at(whole_chunk(w0 + j, end, scratch)), x)
        b = add_ternary(b, integers_at(whole_chunk(w1 + j, end, scratch)), x)
        c = add_ternary(c, integers_at(whole_chunk(w2 + j, end, scratch)), x)
        d = add_ternary(d, integers_at(whole_chunk(w3 + j, end, scratch)), x)
    return sum_integers(a), sum_integers(b), sum_integers(c), sum_integers(d)


@inline
def finish(sum: int, info: int, bias: int, n: int, y: int) -> None:
    """Codes are larger than weights by one: the levels' own sum is taken away."""
    value = np.float32(sum - get_int(info)) * get(info + 8)
    if bias != 0:
        value += get(bias + FLOAT * n)
    put(y + FLOAT * n, value)


@kernel
def product_jobs(
    counter: int, jobs: int, scratch: int,
    levels: int, packed: int, bias: int, y: int, M: int, N: int, plane: int,
) -> None:  # fmt: skip
    """TILE columns of y (M, N) a job, four at a time."""
    end = packed + N * plane
    behind = levels_bytes(plane)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for n in range(job * TILE, min((job + 1) * TILE, N), 4):
            count = min(4, N - n)
            w0 = packed + n * plane
            w1, w2, w3 = w0 + min(1, count - 1) * plane, w0 + min(2, count - 1) * plane, w0 + (count - 1) * plane
            for m in range(M):
                x = levels + m * (behind + INFO)
                sums = four_columns(w0, w1, w2, w3, x, plane, end, scratch)
                for i in range(count):
                    finish(sums[i], x + behind, bias, n + i, y + FLOAT * m * N)


def forward(x: Tensor, packed: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K) float32, packed (N, ceil(K / 4)) uint8 -> (..., N). Raises TypeError for other dtypes."""
    check_shapes(x.shape, packed.shape)
    K, (N, plane) = x.shape[-1], packed.shape
    x, packed, scale, bias = dense(x), dense(packed), dense(single(scale)), dense(single(bias))
    one: tuple[int, ...] = (1,) if scale is not None and scale.ndim else ()
    check("bit_linear", {"x": (x, tuple(x.shape)), "scale": (scale, one), "bias": (bias, (N,))})
    check("bit_linear", {"packed": (packed, (N, plane))}, dtypes=(torch.uint8,))
    y = empty(*x.shape[:-1], N)
    M = x.numel() // K
    levels = empty(M * (-(-plane // CHUNK) * CHUNK_LEVELS + INFO), dtype=torch.uint8)
    launch(level_jobs, M, M * K, 0, *map(address, (x, scale, levels)), K, plane)
    launch(
        product_jobs, -(-N // TILE), M * N * plane // 2, CHUNK,
        *map(address, (levels, packed, bias, y)), M, N, plane,
    )  # fmt: skip
    return y


bit_linear = inference_operator(OPS["bit_linear"], forward, "cpu_bit_linear", "CPU")
"""The op, as torch's compiler sees it."""
