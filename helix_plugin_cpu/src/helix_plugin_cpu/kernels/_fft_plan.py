"""The passes of a transform of N points: radices, tables of factors, and where points stand in memory.

Blocks of 64 and of 4096 points are followed by an unused point, so that the points of a butterfly, powers of two apart,
do not compete for the same few places of a cache.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, integers
from helix_plugin_cpu.kernels._fft_codelets import LEAF, POINT, TOP_RADICES

CHUNK, SUPER = 64, 4096
LEVEL = 6
"""Integers for a pass: radix, points and bytes of a sub-block, points of a block, table, bytes of a table's row."""


@dataclass(frozen=True)
class Plan:
    """N = top x inner points: a pass of radix `top` from or to real rows, and the passes of a block of `inner` points.

    unit    points of the finest blocks, which stay in the L1 cache
    stride  bytes between blocks of `inner` points; a transform takes top * stride
    levels  int64 (passes, LEVEL), coarse to fine
    """

    points: int
    top: int
    inner: int
    unit: int
    stride: int
    top_table: Tensor
    levels: Tensor
    tables: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """Memory of one transform of sixteen channels."""
        return self.top * self.stride

    @property
    def arguments(self) -> tuple[int, ...]:
        """What `conv_jobs` takes. The plan must outlive the call."""
        layout = self.points, self.top, self.inner, self.unit, self.stride
        return *layout, address(self.top_table), address(self.levels), len(self.levels)


def plan(length: int) -> Plan:
    """The plan with the fewest points, at least `length`."""
    found = []
    for top in TOP_RADICES:
        inner = LEAF
        while top * inner < length or _radices(inner) is None:
            inner *= 2
        found.append((top * inner, top))
    return plan_of(*min(found))


@functools.lru_cache(maxsize=16)
def plan_of(points: int, top: int) -> Plan:
    """The plan of a transform of exactly `points`, whose outermost pass has radix `top`."""
    inner = points // top
    block, unit = inner, LEAF
    tables, levels = [], []
    for radix in _radices(inner) or ():
        if block <= CHUNK:
            unit = block
        sub = block // radix
        tables.append(_table(sub, radix, block, 0.0)[:, 1:].contiguous())
        levels.append([radix, sub, POINT * _span(sub), block, address(tables[-1]), 8 * (radix - 1)])
        block = sub
    return Plan(
        points, top, inner, unit, POINT * (_span(inner) + 1), _table(inner, top, points, 0.25),
        integers(levels).reshape(-1, LEVEL), tuple(tables),
    )  # fmt: skip


def _span(points: int) -> int:
    """Points that a block takes up in memory, unused ones included."""
    return points + points // CHUNK + points // SUPER


def _radices(inner: int) -> list[int] | None:
    """Radices of the passes above the leaves, or None; 64 and 4096 are among the blocks if they are smaller."""
    if inner <= CHUNK:
        return {1: [], 4: [4], 8: [8]}.get(inner // LEAF)
    lower = _split(min(inner, SUPER) // CHUNK)
    upper = _split(max(inner, SUPER) // SUPER)
    return None if upper is None or lower is None else [*upper, *lower, CHUNK // LEAF]


def _split(factor: int) -> list[int] | None:
    """A power of two as radices 4 and 8, few of them; None for 2."""
    bits = factor.bit_length() - 1
    if bits == 1:
        return None
    fours = -bits % 3
    return [4] * fours + [8] * ((bits - 2 * fours) // 3)


def _table(columns: int, radix: int, points: int, shift: float) -> Tensor:
    """exp(-2πi j (k + shift) / points) for j < columns, k < radix: float32 (columns, radix, 2).

    A shift of 1/4 includes the weights exp(-πi j / (2 points)) of the right-angle convolution.
    """
    exponents = np.arange(columns)[:, None] * (np.arange(radix) + shift)[None, :]
    angle = -2 * np.pi / points * exponents
    return torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32))
