"""What instructions can read: float32 arrays in main memory, with the shapes that an op asks for."""

from __future__ import annotations

import math
from typing import Any, overload

import torch
from torch import Tensor

from helix_plugin_cpu.decode.record import Recorded

Array = Recorded | Tensor


@overload
def value_of(array: Array) -> Tensor: ...
@overload
def value_of(array: Array | None) -> Tensor | None: ...
def value_of(array: Array | None) -> Tensor | None:
    """The memory of a recorded array, or the array itself. Raises Stale if it was overwritten."""
    return array.value if isinstance(array, Recorded) else array


def is_readable(*arrays: Any) -> bool:
    """Whether all that are given hold float32 numbers in main memory, neither sparse nor lazily negated."""
    return all(
        isinstance(a, Tensor) and a.dtype == torch.float32 and a.is_cpu and a.layout == torch.strided and not a.is_neg()
        for a in map(value_of, arrays)
        if a is not None
    )


def have_shapes(*arrays: tuple[Any, tuple[int, ...]]) -> bool:
    """Whether all that are given have their shapes: an instruction would read on past the end of a smaller one."""
    return all(a is None or tuple(a.shape) == shape for a, shape in arrays)


def is_step(array: Tensor, width: int) -> bool:
    """Whether an array is (batch, 1, width), each row in one piece."""
    return array.ndim == 3 and array.shape[1:] == (1, width) and (array.stride(2) == 1 or width == 1)


def row_bytes(array: Tensor | None) -> int:
    """Bytes from one row of (batch, 1, width) to the next."""
    return 0 if array is None else 4 * array.stride(0)


def norm_row_bytes(array: Tensor | None) -> int:
    """Bytes from one row of (..., width) to the next: of an array in one piece, or of a step."""
    return row_bytes(array) if array is None or not array.is_contiguous() else 4 * array.shape[-1]


def row_count(array: Tensor) -> int:
    """How many rows (..., width) has."""
    return math.prod(array.shape[:-1])
