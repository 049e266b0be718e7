"""Checking torch tensors and turning them into the addresses and strides that kernels take.

A kernel cannot tell what is at an address: what it is given is checked here, and what it writes is allotted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from helix_plugin_torch import arguments
from helix_plugin_torch.arguments import FLOATS, HALF, Shape

SINGLE = (torch.float32,)
CPU = torch.device("cpu")
_READ = frozenset({*FLOATS, torch.int64, torch.uint8, torch.bool})


def empty(*size: int | Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for a kernel to fill. torch's default dtype and device, which the user may have set, have no say."""
    return torch.empty(*size, dtype=dtype, device=CPU)  # type: ignore[arg-type]


def zeros(*size: int | Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same, filled with zeros."""
    return torch.zeros(*size, dtype=dtype, device=CPU)  # type: ignore[arg-type]


def integers(values: Sequence[Any]) -> Tensor:
    """The int64 array of (nested) lists of numbers."""
    return torch.tensor(values, dtype=torch.int64, device=CPU)


check = partial(arguments.check, dtypes=SINGLE, device=CPU)
"""Check shapes, dtypes, float32 alone unless others are given, and that arrays are in main memory."""


@overload
def single(array: Tensor) -> Tensor: ...
@overload
def single(array: None) -> None: ...
@overload
def single(array: Tensor | None) -> Tensor | None: ...
def single(array: Tensor | None) -> Tensor | None:
    """The same values in float32: for parameters and states, which are small."""
    return array if array is None or array.dtype == torch.float32 else array.detach().float()


def stored_as(*arrays: Tensor | None) -> torch.dtype:
    """What activations are stored as: in half precision if any of the given ones is, in bfloat16 of two kinds of it."""
    dtypes = {a.dtype for a in arrays if a is not None}
    return next((half for half in HALF if half in dtypes), torch.float32)


@overload
def stored_like(array: Tensor, like: Tensor) -> Tensor: ...
@overload
def stored_like(array: None, like: Tensor) -> None: ...
@overload
def stored_like(array: Tensor | None, like: Tensor) -> Tensor | None: ...
def stored_like(array: Tensor | None, like: Tensor) -> Tensor | None:
    """The same values in the dtype of `like`: a copy only where a caller mixes dtypes."""
    return array if array is None or array.dtype == like.dtype else array.detach().to(like.dtype)


def cast_back(grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Each gradient in the dtype of its array."""
    return tuple(g if g is None or a is None else g.to(a.dtype) for g, a in zip(grads, arrays, strict=False))


def from_forward(op: str, array: Tensor, shape: Shape) -> Tensor:
    """What a forward kept in float32 for its backward; torch's hooks for saved tensors may have changed it since."""
    check(f"{op}'s backward", {"what the forward kept": (array, shape)})
    return array.contiguous()


def address(array: Tensor | None) -> int:
    """Where an array starts; 0 if there is none. Raises TypeError for one that no kernel can read."""
    if array is None:
        return 0
    if array.dtype not in _READ or not array.is_cpu:
        raise TypeError(f"no kernel of the CPU reads {array.dtype} on {array.device}")
    return array.data_ptr()


def strided(array: Tensor | None) -> tuple[int, int, int]:
    """Address and strides, in elements, over the first two axes of (B, L, D)."""
    return (0, 0, 0) if array is None else (address(array), array.stride(0), array.stride(1))


def flags(reset: Tensor | None) -> Tensor | None:
    """reset (B, L) as contiguous bytes that are 0 or 1."""
    return None if reset is None else reset.to(torch.bool).contiguous()


def row_ends(lengths: Tensor | None, batch: int, length: int) -> Tensor:
    """Where every row ends, int64 (B,), within 0..L."""
    if lengths is None:
        return torch.full((batch,), length, dtype=torch.int64, device=CPU)
    return lengths.to(torch.int64).clamp(0, length).contiguous()
