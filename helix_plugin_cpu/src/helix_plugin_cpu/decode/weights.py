"""Weights as the products of `kernels/_products.py` read them: matrices of N rows (outputs) and K columns (inputs)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import empty, zeros
from helix_plugin_cpu.kernels._integers import GROUP
from helix_plugin_cpu.kernels._products import BFLOAT16, BLOCK, BLOCK_BYTES, FLOAT32, INT8
from helix_plugin_cpu.kernels._simd import LANES

FORMATS = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
MIN_INT8_COLUMNS = 128
"""Matrices with fewer columns gain little from int8 and are kept in bfloat16."""
CHUNK_ROWS = 2048
"""Rows converted at a time, so that converting needs little memory besides the result."""


@dataclass(frozen=True)
class Weight:
    """A stored matrix (N, K); `row` is in bytes."""

    kind: int
    data: Tensor
    row: int
    shape: tuple[int, int]

    @property
    def column_bytes(self) -> float:
        """Bytes read for each column of a product."""
        return self.data.nbytes / self.shape[0] if self.kind != FLOAT32 else 4 * self.shape[1]


def store_weight(weight: Tensor, fmt: str) -> Weight:
    """A matrix (N, K) in a format of `FORMATS`: float32 stays where it is, others are copies.

    >>> stored = store_weight(torch.ones(16, 256), "int8")
    >>> stored.data.nbytes * 8 / (16 * 256)  # bits of a weight
    8.5
    """
    weight = weight.detach()
    shape = (weight.shape[0], weight.shape[1])
    if fmt == "int8" and shape[1] < MIN_INT8_COLUMNS:
        fmt = "bfloat16"
    if fmt == "float32":
        if weight.stride(1) != 1 and shape[1] > 1:
            weight = weight.contiguous()
        return Weight(FLOAT32, weight, 4 * weight.stride(0), shape)
    tiled = fmt == "int8"
    columns = _up(shape[1], BLOCK if tiled else 2 * LANES)
    if tiled:
        row = columns // BLOCK * BLOCK_BYTES // LANES
        data = empty(_up(shape[0], LANES) * row, dtype=torch.uint8)
    else:
        row = 2 * columns
        data = empty(shape[0] * row, dtype=torch.uint8)
    for start in range(0, shape[0], CHUNK_ROWS):
        part = weight[start : start + CHUNK_ROWS]
        rows = _up(part.shape[0], LANES) if tiled else part.shape[0]
        padded = zeros(rows, columns)
        padded[: part.shape[0], : shape[1]] = part
        packed = _int8(padded) if tiled else _bfloat16(padded)
        data[start * row : start * row + packed.numel()] = packed
    return Weight(FORMATS[fmt], data, row, shape)


def as_float32(weight: Weight) -> Tensor:
    """The matrix (N, K) that a stored one stands for."""
    N, K = weight.shape
    if weight.kind == FLOAT32:
        return weight.data
    if weight.kind == BFLOAT16:
        words = weight.data.view(torch.bfloat16).reshape(N, -1, LANES, 2)
        return words.transpose(2, 3).reshape(N, -1)[:, :K].float()
    blocks = weight.data.reshape(-1, -(-K // BLOCK), BLOCK_BYTES)
    numbers = blocks[..., : LANES * BLOCK].reshape(*blocks.shape[:2], BLOCK // 4, LANES, 4).permute(0, 3, 1, 2, 4)
    scales = blocks[..., LANES * BLOCK :].contiguous().view(torch.bfloat16).reshape(*blocks.shape[:2], LANES, 2)
    groups = numbers.reshape(-1, blocks.shape[1], 2, GROUP).float() - 128
    floats = groups * scales.permute(0, 2, 1, 3).reshape(-1, blocks.shape[1], 2, 1).float()
    return floats.reshape(-1, blocks.shape[1] * BLOCK)[:N, :K]


def _bfloat16(rows: Tensor) -> Tensor:
    halves = rows.bfloat16().view(torch.int16).reshape(rows.shape[0], -1, 2, LANES)
    return halves.transpose(2, 3).contiguous().view(torch.uint8).flatten()


def _int8(rows: Tensor) -> Tensor:
    N, K = rows.shape
    groups = rows.reshape(N, -1, GROUP)
    # Rounded up in bfloat16, so that no weight exceeds 127 scales.
    scales = (groups.abs().amax(-1) * ((1 + 2**-8) / 127)).bfloat16()
    scales = torch.where(scales.float() > 1e-30, scales, torch.zeros_like(scales))
    exact = scales.float()[..., None]
    numbers = torch.where(exact > 0, (groups / exact).round(), torch.zeros_like(groups)).clamp(-127, 127)
    bytes_ = (numbers + 128).to(torch.uint8).reshape(N // LANES, LANES, K // BLOCK, BLOCK // 4, 4)
    bytes_ = bytes_.permute(0, 2, 3, 1, 4).reshape(N // LANES, K // BLOCK, LANES * BLOCK)
    words = scales.reshape(N // LANES, LANES, K // BLOCK, 2).transpose(1, 2).contiguous()
    words = words.view(torch.uint8).reshape(N // LANES, K // BLOCK, LANES * 4)
    return torch.cat([bytes_, words], dim=-1).flatten()


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
