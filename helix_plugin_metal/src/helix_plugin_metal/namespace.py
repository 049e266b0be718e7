"""mlx.core as the array namespace of references: where its signatures or results differ from the array API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from helix_plugin_metal.kernels._matmul import matmul
from helix_plugin_metal.selection import where

Array = Any
Shape = int | Sequence[int]


class Namespace:
    """`mlx.core` behind the array API. Arrays have no device of their own, so `device` is accepted and means nothing.

    Missing, as in MLX: boolean masks as an index, and results whose shape depends on the data (`nonzero`, `unique`).
    """

    bool = mx.bool_
    matmul = staticmethod(matmul)
    where = staticmethod(where)

    def __getattr__(self, name: str) -> Any:
        return getattr(mx, name)

    def asarray(self, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Array:
        return mx.asarray(obj, dtype=dtype, copy=copy)

    def empty(self, shape: Shape, *, dtype: Any = None, device: Any = None) -> Array:
        return mx.zeros(shape, dtype or mx.float32)

    def zeros(self, shape: Shape, *, dtype: Any = None, device: Any = None) -> Array:
        return mx.zeros(shape, dtype or mx.float32)

    def ones(self, shape: Shape, *, dtype: Any = None, device: Any = None) -> Array:
        return mx.ones(shape, dtype or mx.float32)

    def full(self, shape: Shape, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Array:
        return mx.full(shape, fill_value, dtype)

    def empty_like(self, x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
        return mx.zeros_like(x, dtype)

    def zeros_like(self, x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
        return mx.zeros_like(x, dtype)

    def ones_like(self, x: Array, /, *, dtype: Any = None, device: Any = None) -> Array:
        return mx.ones_like(x, dtype)

    def full_like(self, x: Array, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Array:
        return mx.full_like(x, fill_value, dtype)

    def arange(
        self, start: float, /, stop: float | None = None, step: float = 1, *, dtype: Any = None, device: Any = None
    ) -> Array:
        """MLX's default for whole numbers is int32."""
        begin, end = (0, start) if stop is None else (start, stop)
        return mx.arange(begin, end, step, dtype=dtype)

    def linspace(
        self, start: float, stop: float, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: Any = True
    ) -> Array:
        return mx.linspace(start, stop, num, endpoint=endpoint, dtype=dtype or mx.float32)

    def eye(
        self, n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
    ) -> Array:
        return mx.eye(n_rows, n_cols, k, dtype or mx.float32)

    def astype(self, x: Array, dtype: Any, /, *, copy: Any = True, device: Any = None) -> Array:
        return x.astype(dtype)

    def clip(self, x: Array, /, min: Any = None, max: Any = None) -> Array:
        return x if min is None and max is None else mx.clip(x, min, max)

    def sum(self, x: Array, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Array:
        return mx.sum(x if dtype is None else x.astype(dtype), axis=axis, keepdims=keepdims)

    def prod(self, x: Array, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Array:
        return mx.prod(x if dtype is None else x.astype(dtype), axis=axis, keepdims=keepdims)

    def std(self, x: Array, /, *, axis: Any = None, correction: int = 0, keepdims: Any = False) -> Array:
        return mx.std(x, axis=axis, ddof=correction, keepdims=keepdims)

    def var(self, x: Array, /, *, axis: Any = None, correction: int = 0, keepdims: Any = False) -> Array:
        return mx.var(x, axis=axis, ddof=correction, keepdims=keepdims)

    def cumulative_sum(
        self, x: Array, /, *, axis: int | None = None, dtype: Any = None, include_initial: Any = False
    ) -> Array:
        axis = _only_axis(x) if axis is None else axis
        total = mx.cumsum(x, axis=axis, dtype=dtype)
        if not include_initial:
            return total
        shape = list(total.shape)
        shape[axis] = 1
        return mx.concatenate([mx.zeros(shape, total.dtype), total], axis=axis)

    # Indices have no gradient, but MLX must be told: it refuses to differentiate with respect to them.

    def take(self, x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
        return mx.take(x, mx.stop_gradient(indices), axis=_only_axis(x) if axis is None else axis)

    def take_along_axis(self, x: Array, indices: Array, /, *, axis: int = -1) -> Array:
        return mx.take_along_axis(x, mx.stop_gradient(indices), axis=axis)

    def argmax(self, x: Array, /, *, axis: int | None = None, keepdims: Any = False) -> Array:
        """In int64: MLX's own is unsigned, and would wrap where an index is subtracted from."""
        return _index(mx.argmax(x, axis=axis, keepdims=keepdims))

    def argmin(self, x: Array, /, *, axis: int | None = None, keepdims: Any = False) -> Array:
        return _index(mx.argmin(x, axis=axis, keepdims=keepdims))

    def argsort(self, x: Array, /, *, axis: int = -1, descending: Any = False, stable: Any = True) -> Array:
        """Always stable."""
        if not descending:
            return _index(mx.argsort(x, axis=axis))
        # Backwards both ways, so that equal values keep their order.
        order = mx.argsort(mx.flip(x, axis=axis), axis=axis)
        return x.shape[axis] - 1 - mx.flip(_index(order), axis=axis)

    def sort(self, x: Array, /, *, axis: int = -1, descending: Any = False, stable: Any = True) -> Array:
        ordered = mx.sort(x, axis=axis)
        return mx.flip(ordered, axis=axis) if descending else ordered


def _index(found: Array) -> Array:
    return mx.stop_gradient(found).astype(mx.int64)


def _only_axis(x: Array) -> int:
    if x.ndim != 1:
        raise ValueError(f"an array of {x.ndim} axes needs `axis`")
    return 0


xp = Namespace()
