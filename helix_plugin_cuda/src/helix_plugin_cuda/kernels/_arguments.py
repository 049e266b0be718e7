"""Checking torch tensors before a kernel reads them, and what kernels want to know of them.

Kernels load float32, bfloat16 or float16 and compute in float32, so nothing is cast here. A step's row is addressed
by 64-bit strides: batch and time may be strided, the last axis has unit stride or is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from helix_plugin_torch.arguments import HALF


def needed(op: str, given: Mapping[str, Tensor | None], names: Sequence[str]) -> None:
    """Raises ValueError for an absent array that the op cannot do without."""
    for name in names:
        if given[name] is None:
            raise ValueError(f"{op}: {name} is missing")


def named(op: str, names: Sequence[str], arrays: Sequence[Tensor | None], count: int) -> dict[str, Any]:
    """An op's arrays by name, None where they end early. Raises ValueError if one of the first `count` is absent."""
    given = dict(zip(names, (*arrays, *(None,) * (len(names) - len(arrays))), strict=True))
    needed(op, given, names[:count])
    return given


def strides(array: Tensor | None, axes: int = 2) -> tuple[int, ...]:
    """Strides, in elements, of the first axes; zeros if there is no array."""
    return (0,) * axes if array is None else tuple(array.stride()[:axes])


def flags(reset: Tensor | None) -> Tensor | None:
    """reset (B, L) as contiguous bytes that are 0 or 1."""
    return None if reset is None else reset.to(torch.bool).to(torch.uint8).contiguous()


def ends(lengths: Tensor | None, length: int) -> Tensor | None:
    """Where every row ends, int32 (B,), within 0..L."""
    return None if lengths is None else lengths.clamp(0, length).to(torch.int32).contiguous()


def activation_dtype(*arrays: Tensor | None) -> torch.dtype:
    """The dtype of an op's activations: a half one if any array has it, else that of the first array."""
    found = [a.dtype for a in arrays if a is not None and a.is_floating_point()]
    return next((dtype for dtype in found if dtype in HALF), found[0])


@overload
def like(array: Tensor) -> Tensor: ...
@overload
def like(array: Tensor | None) -> Tensor | None: ...
def like(array: Tensor | None) -> Tensor | None:
    """Room for a gradient: contiguous, in the array's shape and dtype."""
    return None if array is None else torch.empty(array.shape, dtype=array.dtype, device=array.device)
