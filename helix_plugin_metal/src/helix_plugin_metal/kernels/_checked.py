"""Metal kernels are used only on a GPU on which they were seen to be right."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import mlx.core as mx


def on_metal_gpu() -> bool:
    """Whether MLX computes on a GPU through Metal."""
    return bool(mx.default_device().type == mx.gpu and mx.metal.is_available())


@functools.cache
def right_here(op: str, compare: Callable[[], bool]) -> bool:
    """Whether `compare`, which runs an op's kernels on this GPU, says that they are right. Warns, once, if not."""
    try:
        right, why = compare(), "is wrong"
    except Exception as error:
        right, why = False, f"failed: {error}"
    if not right:
        warnings.warn(
            f"the Metal kernel of {op} {why} on this GPU; MLX's array operations do its work, more slowly",
            RuntimeWarning,
            stacklevel=2,
        )
    return right
