"""torch behind the array API: array-api-compat's namespace, but for two functions that `torch.func.vmap` refuses."""

from __future__ import annotations

import array_api_compat.torch
import torch
from torch import Tensor

globals().update({name: value for name, value in vars(array_api_compat.torch).items() if not name.startswith("__")})


def moveaxis(x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...], /) -> Tensor:
    """The axes at `source` moved to `destination`."""
    return torch.movedim(x, _axes(source), _axes(destination))


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """What lies along an axis, one by one."""
    return torch.unbind(x, axis)


def _axes(axes: int | tuple[int, ...]) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else axes
