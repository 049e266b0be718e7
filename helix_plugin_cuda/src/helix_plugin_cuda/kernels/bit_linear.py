"""BitNet's linear map: activations of eight bits in one pass, then products with codes that are unpacked in registers.

A few rows are summed; more of them are products of int8 tiles. Sums are of integers, so they are exact.

M rows, K inputs, N outputs.

Source: Ma et al., The Era of 1-bit LLMs, 2024 (BitNet b1.58).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_core.ops import OPS
from helix_core.ops.bit_linear import LEVELS, SMALLEST, check_shapes
from helix_plugin_cuda.kernels._launch import INTERPRETED, blocks, launch, power, wide
from helix_plugin_torch.arguments import check, dense
from helix_plugin_torch.operators import inference_operator

MOST_SUMMED_ROWS = 4
"""Up to so many rows, sums are quicker than tiles of sixteen rows."""


@triton.jit
def _levels(x, scale, levels, worth, K, BLOCK: tl.constexpr, MOST: tl.constexpr, LEAST: tl.constexpr):
    """A row a program: whole numbers of which the largest is MOST, and what one of them is worth."""
    row = wide(tl.program_id(0))
    largest = 0.0
    strange = 0
    for begin in range(0, K, BLOCK):
        k = begin + tl.arange(0, BLOCK)
        size = tl.abs(tl.load(x + row * K + k, mask=k < K, other=0.0).to(tl.float32))
        finite = size < float("inf")
        largest = tl.maximum(largest, tl.max(tl.where(finite, size, 0.0)))
        strange += tl.sum(tl.where(finite, 0, 1))
    s = tl.div_rn(MOST * 1.0, tl.maximum(largest, LEAST))
    for begin in range(0, K, BLOCK):
        k = begin + tl.arange(0, BLOCK)
        v = tl.load(x + row * K + k, mask=k < K, other=0.0).to(tl.float32)
        # 1.5 * 2^23 and back: to the nearest, ties to even.
        level = (tl.where(tl.abs(v) < float("inf"), v, 0.0) * s + 12582912.0) - 12582912.0
        tl.store(levels + row * K + k, level.to(tl.int8), mask=k < K)
    tl.store(worth + row, tl.where(strange == 0, tl.load(scale).to(tl.float32) / s, float("nan")))


@triton.jit
def _products(
    levels, packed, worth, bias, y, M, N, K, plane,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BYTES: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """ROWS times COLUMNS of y (M, N); TILES: by products of int8 tiles."""
    n = wide(tl.program_id(0)) * COLUMNS + tl.arange(0, COLUMNS)
    m = wide(tl.program_id(1)) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS, COLUMNS], tl.int32)
    for begin in range(0, plane, BYTES):
        j = begin + tl.arange(0, BYTES)
        inside = (j < plane)[:, None] & (n < N)[None, :]
        codes = tl.load(packed + n[None, :] * plane + j[:, None], mask=inside, other=0)
        for p in tl.static_range(4):
            weight = ((codes >> (2 * p)) & 3).to(tl.int8) - 1
            k = p * plane + j
            given = (m < M)[:, None] & ((j < plane) & (k < K))[None, :]
            level = tl.load(levels + m[:, None] * K + k[None, :], mask=given, other=0)
            if TILES:
                total = tl.dot(level, weight, total, out_dtype=tl.int32)
            else:
                total += tl.sum(level.to(tl.int32)[:, :, None] * weight.to(tl.int32)[None, :, :], axis=1)
    value = total.to(tl.float32) * tl.load(worth + m, mask=m < M, other=0.0)[:, None]
    if bias is not None:
        value += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    tl.store(y + m[:, None] * N + n[None, :], value, mask=(m < M)[:, None] & (n < N)[None, :])


def forward(x: Tensor, packed: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K), packed (N, ceil(K / 4)) uint8 -> (..., N) in the dtype of x. Raises TypeError for other dtypes."""
    check_shapes(x.shape, packed.shape)
    K, (N, plane) = x.shape[-1], packed.shape
    check("bit_linear", {"x": (x, tuple(x.shape)), "scale": (scale, tuple(scale.shape)), "bias": (bias, (N,))})
    if packed.dtype != torch.uint8:
        raise TypeError(f"bit_linear: packed is {packed.dtype}, and ternary weights are packed into uint8")
    x, packed, scale = dense(x), dense(packed), dense(scale)
    bias = dense(bias)
    M = x.numel() // K
    levels = torch.empty(M, K, dtype=torch.int8, device=x.device)
    worth = torch.empty(M, dtype=torch.float32, device=x.device)
    y = torch.empty(*x.shape[:-1], N, dtype=x.dtype, device=x.device)
    launch(_levels, (M,), x, scale, levels, worth, K, BLOCK=min(power(K), 4096), MOST=LEVELS, LEAST=SMALLEST)
    summed = M <= MOST_SUMMED_ROWS
    tile = {"ROWS": power(M), "COLUMNS": 16, "BYTES": 128} if summed else {"ROWS": 32, "COLUMNS": 64, "BYTES": 64}
    grid = (blocks(N, tile["COLUMNS"]), blocks(M, tile["ROWS"]))
    launch(_products, grid, levels, packed, worth, bias, y, M, N, K, plane, **tile, TILES=not summed)
    return y


bit_linear = inference_operator(OPS["bit_linear"], forward, "cuda_bit_linear", "CPU" if INTERPRETED else "CUDA")
"""The op, as torch's compiler sees it."""
