"""Matrix products for MLX's CPU device: NumPy's, of the same memory.

Small ones, and those in compiled functions, are MLX's own. Its BLAS under Linux is several times as fast where the
right factor's rows are contiguous. A weight's are not: products with it are with its transpose. Copying it costs a
hundredth of them.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.host import numbers

Array = Any

LARGE = 1 << 18
"""Multiplications from which on it pays to wait for the factors."""
FEW_ROWS = 12
"""Up to here, a copy of the right factor costs more than it saves."""


def matmul(a: Array, b: Array, /) -> Array:
    """(..., M, K) and (..., K, N) -> (..., M, N)."""
    if not on_cpu() or min(a.ndim, b.ndim) < 2 or a.dtype != mx.float32 or b.dtype != mx.float32:
        return mx.matmul(a, b)
    return _matmul(a, b)


def product(a: Array, b: Array) -> Array:
    """(..., M, K) and (..., K, N) -> (..., M, N), without a derivative."""
    found = numbers(a, b) if a.size * b.shape[-1] >= LARGE else None
    if found is not None:
        return mx.array(np.matmul(*map(_for_blas, found)))
    return mx.matmul(a, b if a.shape[-2] <= FEW_ROWS else mx.contiguous(b))


def _for_blas(x: np.ndarray) -> np.ndarray:
    """A copy if neither rows nor columns are contiguous: NumPy would then multiply by itself."""
    return x if x.itemsize in x.strides[-2:] else np.ascontiguousarray(x)


@mx.custom_function
def _matmul(a: Array, b: Array) -> Array:
    return product(a, b)


@_matmul.vjp
def _matmul_backward(primals: Any, gradient: Array, _: Array) -> tuple[Array, Array]:
    a, b = primals
    to_a = _matmul(gradient, mx.swapaxes(b, -1, -2))
    to_b = _matmul(mx.swapaxes(a, -1, -2), gradient)
    return _summed(to_a, a.shape), _summed(to_b, b.shape)


def _summed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an array that was broadcast to the gradient's shape."""
    extra = gradient.ndim - len(shape)
    axes = [*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 and gradient.shape[extra + i] != 1)]
    return mx.sum(gradient, axis=axes, keepdims=True).reshape(shape) if axes else gradient
