"""Torch tensors as the addresses and strides that kernels take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from helix_plugin_cpu.kernels._simd import LANES


@dataclass(frozen=True)
class Rows:
    """A (B, L, D) tensor whose last axis is contiguous: its address and its strides over B and L, in floats."""

    tensor: Tensor | None

    @property
    def parts(self) -> tuple[int, int, int]:
        if self.tensor is None:
            return 0, 0, 0
        return self.tensor.data_ptr(), self.tensor.stride(0), self.tensor.stride(1)


def rows(array: Tensor | None) -> Rows:
    """`array` as rows, without a copy if its last axis is contiguous already."""
    if array is None:
        return Rows(None)
    array = array.detach()
    return Rows(array if array.stride(2) == 1 or array.shape[2] <= 1 else array.contiguous())


def vector(array: Tensor | None, size: int) -> Tensor:
    """A (D,) tensor padded with zeros to whole blocks of lanes; zeros if absent."""
    padded = torch.zeros(-(-size // LANES) * LANES)
    if array is not None:
        padded[:size] = array.detach()
    return padded


def dense(array: Tensor | None) -> Tensor:
    """A contiguous three-dimensional tensor; an empty one if absent."""
    return torch.empty(0, 0, 0) if array is None else array.detach().contiguous()


def flags_and_ends(
    reset: Tensor | None, lengths: Tensor | None, batch: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """reset as uint8 (B, L), or (0, 0) if absent; the end of every row as int64 (B,)."""
    flags = np.empty((0, 0), np.uint8) if reset is None else reset.contiguous().view(torch.uint8).numpy()
    if lengths is None:
        ends = np.full(batch, length, np.int64)
    else:
        ends = lengths.to(torch.int64).clamp(0, length).contiguous().numpy()
    return flags, ends
