"""What a kernel may rely on: arrays of the shapes, dtypes and device that it reads, and rows that it can step through.

A kernel cannot tell what is at an address, so its arguments are checked before. Plugins with kernels for torch tensors
share these checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import torch
from torch import Tensor

Shape = tuple[int, ...]
HALF = (torch.bfloat16, torch.float16)
FLOATS = (torch.float32, *HALF)
"""What arrays are stored as where a kernel reads half precision and computes in float32."""
INTEGERS = frozenset({"reset", "lengths", "targets", "tokens"})
"""Names of arguments that hold flags or integers, in any dtype."""


def check(
    op: str,
    arrays: Mapping[str, tuple[Tensor | None, Shape]],
    *,
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    device: torch.device | None = None,
) -> None:
    """Check that every given array has its shape, one of the dtypes and the device, which is that of the first if None.

    Raises TypeError for a dtype, ValueError for a shape or a device.

    >>> import torch
    >>> x, weight = torch.zeros(2, 3, 4), torch.zeros(5)
    >>> check("rms_norm", {"x": (x, (2, 3, 4)), "weight": (weight, (4,))})
    Traceback (most recent call last):
    ValueError: rms_norm: weight has shape (5,), expected (4,)
    """
    for name, (array, shape) in arrays.items():
        if array is None:
            continue
        if array.shape != shape:
            raise ValueError(f"{op}: {name} has shape {tuple(array.shape)}, expected {shape}")
        if array.dtype not in dtypes and name not in INTEGERS:
            *others, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
            taken = f"{', '.join(others)} and {last}" if others else last
            raise TypeError(
                f"{op}: {name} is {array.dtype}, and the kernel takes {taken}; "
                f"cast it with .float() or use the op's reference"
            )
        if device is None:
            device = array.device
        elif array.device != device:
            raise ValueError(f"{op}: {name} is on {array.device}, expected {device}")


@overload
def rows(array: Tensor) -> Tensor: ...
@overload
def rows(array: None) -> None: ...
@overload
def rows(array: Tensor | None) -> Tensor | None: ...
def rows(array: Tensor | None) -> Tensor | None:
    """Give the last axis unit stride, without a copy where it has that.

    >>> import torch
    >>> rows(torch.zeros(2, 4, 3).transpose(1, 2)).stride()
    (12, 4, 1)
    """
    if array is None:
        return None
    if array.is_neg():
        array = array.resolve_neg()
    return array if array.shape[-1] <= 1 or array.stride(-1) == 1 else array.detach().contiguous()


@overload
def dense(array: Tensor) -> Tensor: ...
@overload
def dense(array: None) -> None: ...
@overload
def dense(array: Tensor | None) -> Tensor | None: ...
def dense(array: Tensor | None) -> Tensor | None:
    """Make an array contiguous, without a copy where it is so."""
    if array is None or (array.is_contiguous() and not array.is_neg()):
        return array
    return array.detach().resolve_neg().contiguous()
