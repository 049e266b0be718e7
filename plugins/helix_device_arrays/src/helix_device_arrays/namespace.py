"""The array-API functions that references and layers call, on arrays of one device."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from helix_core.tree import tree_map
from helix_device_arrays import dtypes
from helix_device_arrays import reduce as reductions
from helix_device_arrays.array import Array, apply, axes_of, from_numpy, take, take_along_axis
from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import DType, boolean, float32, int32
from helix_device_arrays.evaluate import write
from helix_device_arrays.kernels._transforms import Transforms
from helix_device_arrays.matmul import matmul
from helix_device_arrays.nodes import Const, Iota, Leaf
from helix_device_arrays.views import Shape, View, broadcast_shapes, size_of

UNARY = (
    "exp",
    "log",
    "log1p",
    "expm1",
    "tanh",
    "sin",
    "cos",
    "sqrt",
    "abs",
    "floor",
    "negative",
    "logical_not",
    "isnan",
)
BINARY = {
    "add": "add", "subtract": "subtract", "multiply": "multiply", "divide": "divide", "pow": "pow", "atan2": "atan2",
    "maximum": "maximum", "minimum": "minimum", "remainder": "remainder", "floor_divide": "floor_divide",
    "logical_and": "logical_and", "logical_or": "logical_or", "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or",
    "bitwise_xor": "bitwise_xor", "bitwise_right_shift": "shift_right", "equal": "equal", "not_equal": "not_equal",
    "less": "less", "less_equal": "less_equal", "greater": "greater", "greater_equal": "greater_equal",
}  # fmt: skip


class Namespace:
    """Functions of the Python array API; `int64` is `int32`, the widest whole number of a device."""

    abs: Callable[[Any], Array]
    isnan: Callable[[Any], Array]
    bool, int32, int64, float32 = boolean, int32, int32, float32
    inf, nan, pi, e, newaxis = math.inf, math.nan, math.pi, math.e, None

    def __init__(self, device: Device) -> None:
        self.device = device
        self.fft = Transforms(device)
        if device.halves:
            self.float16 = dtypes.float16
        for name in UNARY:
            setattr(self, name, functools.partial(self._apply, name))
        for name, operation in BINARY.items():
            setattr(self, name, functools.partial(self._apply, operation))

    def _apply(self, name: str, *values: Any) -> Array:
        return apply(self.device, name, values)

    # Making arrays.

    def asarray(self, value: Any, dtype: DType | None = None, device: Any = None, copy: Any = None) -> Array:
        if isinstance(value, Array):
            return value if dtype is None else value.astype(dtype)
        return from_numpy(self.device, np.asarray(value), dtype)

    def full(self, shape: Any, fill_value: Any, dtype: DType | None = None, device: Any = None) -> Array:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if dtype is None:
            dtype = dtypes.dtype_of_scalar(fill_value)
            dtype = float32 if dtype.kind == "f" else dtype
        return Array(self.device, Const(fill_value, shape, dtypes.promoted(dtype)))

    def zeros(self, shape: Any, dtype: DType | None = None, device: Any = None) -> Array:
        return self.full(shape, 0, dtype or float32)

    def ones(self, shape: Any, dtype: DType | None = None, device: Any = None) -> Array:
        return self.full(shape, 1, dtype or float32)

    empty = zeros

    def zeros_like(self, x: Array, dtype: DType | None = None, device: Any = None) -> Array:
        return self.full(x.shape, 0, dtype or x.dtype)

    def ones_like(self, x: Array, dtype: DType | None = None, device: Any = None) -> Array:
        return self.full(x.shape, 1, dtype or x.dtype)

    def full_like(self, x: Array, fill_value: Any, dtype: DType | None = None, device: Any = None) -> Array:
        return self.full(x.shape, fill_value, dtype or x.dtype)

    def arange(
        self, start: Any, stop: Any = None, step: Any = 1, dtype: DType | None = None, device: Any = None
    ) -> Array:
        if stop is None:
            start, stop = 0, start
        numbers = (start, stop, step)
        if all(isinstance(n, int) for n in numbers):
            node = Iota(View((len(range(*numbers)),), (step,), start), dtype or int32)
            return Array(self.device, node)
        found: Array = self.arange(max(math.ceil((stop - start) / step), 0), dtype=dtype or float32) * step + start
        return found

    # Elementwise.

    def where(self, condition: Any, x: Any, y: Any) -> Array:
        return self._apply("where", condition, x, y)

    def astype(self, x: Array, dtype: DType, copy: Any = True, device: Any = None) -> Array:
        return x.astype(dtype)

    def clip(self, x: Array, min: Any = None, max: Any = None) -> Array:  # the array API's own names
        if min is not None:
            x = self._apply("maximum", x, min)
        return x if max is None else self._apply("minimum", x, max)

    def square(self, x: Array) -> Array:
        return x * x

    def sign(self, x: Array) -> Array:
        one = self.ones_like(x)
        found = self.where(x > 0, one, self.where(x < 0, -one, self.zeros_like(x)))
        return self.where(self.isnan(x), x, found) if x.dtype.kind == "f" else found

    def round(self, x: Array) -> Array:
        return self._apply("round", x) if x.dtype.kind == "f" else x

    def isfinite(self, x: Array) -> Array:
        return self.abs(x) < math.inf if x.dtype.kind == "f" else self.full(x.shape, True)

    def isdtype(self, dtype: DType, kind: Any) -> Any:
        if isinstance(kind, tuple):
            return any(self.isdtype(dtype, k) for k in kind)
        words = {"f": ("real floating", "numeric"), "i": ("integral", "signed integer", "numeric"), "b": ("bool",)}
        return kind is dtype or kind in words[dtype.kind]

    # Places.

    def reshape(self, x: Array, shape: Any, copy: Any = None) -> Array:
        return x.reshape((shape,) if isinstance(shape, int) else tuple(shape))

    def permute_dims(self, x: Array, axes: Sequence[int]) -> Array:
        return x.permute(tuple(a % x.ndim for a in axes))

    def matrix_transpose(self, x: Array) -> Array:
        return x.permute((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        order = [a for a in range(x.ndim) if a != source % x.ndim]
        order.insert(destination % x.ndim, source % x.ndim)
        return x.permute(tuple(order))

    def broadcast_to(self, x: Array, shape: Any) -> Array:
        return x.broadcast(tuple(shape))

    def broadcast_arrays(self, *arrays: Array) -> list[Array]:
        shape = broadcast_shapes(*(a.shape for a in arrays))
        return [a.broadcast(shape) for a in arrays]

    def expand_dims(self, x: Array, axis: int = 0) -> Array:
        axis %= x.ndim + 1
        return x.reshape((*x.shape[:axis], 1, *x.shape[axis:]))

    def squeeze(self, x: Array, axis: Any) -> Array:
        axes = axes_of(axis, x.ndim)
        return x.reshape(tuple(n for a, n in enumerate(x.shape) if a not in axes))

    def flip(self, x: Array, axis: Any = None) -> Array:
        axes = axes_of(axis, x.ndim)
        return x[tuple(slice(None, None, -1) if a in axes else slice(None) for a in range(x.ndim))]

    def tile(self, x: Array, repetitions: Sequence[int]) -> Array:
        lead = max(len(repetitions) - x.ndim, 0)
        shape = (1,) * lead + x.shape
        times = (1,) * (len(shape) - len(repetitions)) + tuple(repetitions)
        pairs = tuple(k for n, r in zip(shape, times, strict=True) for k in (r, n))
        ones = tuple(k for n in shape for k in (1, n))
        return x.reshape(ones).broadcast(pairs).reshape(tuple(n * r for n, r in zip(shape, times, strict=True)))

    def repeat(self, x: Array, repeats: int, axis: int | None = None) -> Array:
        """Every element `repeats` times, an integer."""
        if axis is None:
            return self.repeat(x.reshape((-1,)), repeats, 0)
        axis %= x.ndim
        spread = (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :])
        shape = tuple(n * repeats if a == axis else n for a, n in enumerate(x.shape))
        return self.expand_dims(x, axis + 1).broadcast(spread).reshape(shape)

    def roll(self, x: Array, shift: int, axis: int) -> Array:
        n = x.shape[axis]
        cut = (-shift) % max(n, 1)
        at = [slice(None)] * (axis % x.ndim)
        return self.concat([x[(*at, slice(cut, None))], x[(*at, slice(0, cut))]], axis=axis)

    def concat(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        """Every part is evaluated into its place."""
        dtype = dtypes.promoted(*(a.dtype for a in arrays))
        axis %= arrays[0].ndim
        parts = [a.astype(dtype) for a in arrays if a.shape[axis]]
        if len(parts) == 1:
            return parts[0]
        total = sum(a.shape[axis] for a in parts)
        shape = tuple(total if a == axis else n for a, n in enumerate(arrays[0].shape))
        out = Leaf(self.device.allocate(size_of(shape) * dtype.itemsize), View.of(shape), dtype)
        begin = 0
        for part in parts:
            starts = tuple(begin if a == axis else 0 for a in range(len(shape)))
            place = out.view.cut(starts, (1,) * len(shape), part.shape)
            write(self.device, part.node, Leaf(out.buffer, place, dtype))
            begin += part.shape[axis]
        return Array(self.device, out)

    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return self.concat([self.expand_dims(a, axis) for a in arrays], axis=axis)

    def unstack(self, x: Array, axis: int = 0) -> tuple[Array, ...]:
        axis %= x.ndim
        before = (slice(None),) * axis
        return tuple(x[(*before, i)] for i in range(x.shape[axis]))

    def take(self, x: Array, indices: Array, axis: int = 0) -> Array:
        return take(x, indices, axis)

    def take_along_axis(self, x: Array, indices: Array, axis: int = -1) -> Array:
        return take_along_axis(x, indices, axis)

    def tril(self, x: Array, k: int = 0) -> Array:
        return self.where(self._below(x, k), x, self.zeros_like(x))

    def triu(self, x: Array, k: int = 0) -> Array:
        return self.where(self._below(x, k - 1), self.zeros_like(x), x)

    def _below(self, x: Array, k: int) -> Array:
        rows, columns = x.shape[-2:]
        return self.arange(columns)[None, :] <= self.arange(rows)[:, None] + k

    # Reductions.

    def sum(self, x: Array, axis: Any = None, keepdims: Any = False, dtype: DType | None = None) -> Array:
        return x.reduced("sum", axis, keepdims)

    def prod(self, x: Array, axis: Any = None, keepdims: Any = False) -> Array:
        return x.reduced("prod", axis, keepdims)

    def mean(self, x: Array, axis: Any = None, keepdims: Any = False) -> Array:
        return x.mean(axis, keepdims)

    def var(self, x: Array, axis: Any = None, keepdims: Any = False, correction: float = 0) -> Array:
        centred = x - x.mean(axis, True)
        count = size_of(tuple(x.shape[a] for a in axes_of(axis, x.ndim)))
        return (centred * centred).sum(axis, keepdims) / (count - correction)

    def max(self, x: Array, axis: Any = None, keepdims: Any = False) -> Array:
        return x.reduced("max", axis, keepdims)

    def min(self, x: Array, axis: Any = None, keepdims: Any = False) -> Array:
        return x.reduced("min", axis, keepdims)

    def any(self, x: Array, axis: Any = None, keepdims: Any = False) -> Array:
        return x.astype(boolean).astype(int32).reduced("max", axis, keepdims) > 0

    def all(self, x: Array, axis: Any = None, keepdims: Any = False) -> Array:
        return x.astype(boolean).astype(int32).reduced("min", axis, keepdims) > 0

    def argmax(self, x: Array, axis: Any = None, keepdims: Any = False) -> Array:
        if axis is None:
            return self.argmax(x.reshape((-1,)), 0)
        found = Array(self.device, reductions.argmax(self.device, self.moveaxis(x, axis, -1).node))
        return self.expand_dims(found, axis) if keepdims else found

    def cumulative_sum(self, x: Array, axis: Any = None, dtype: DType | None = None) -> Array:
        axis = (axis if axis is not None else 0) % x.ndim
        return Array(self.device, reductions.cumulative_sum(self.device, x.node, axis))

    def argsort(self, x: Array, axis: int = -1, descending: Any = False, stable: Any = True) -> Array:
        turned = self.moveaxis(x, axis, -1)
        order = Array(self.device, reductions.argsort(self.device, turned.node, descending))
        return self.moveaxis(order, -1, axis)

    def sort(self, x: Array, axis: int = -1, descending: Any = False, stable: Any = True) -> Array:
        return take_along_axis(x, self.argsort(x, axis, descending), axis)

    def searchsorted(self, x1: Array, x2: Array, side: str = "left") -> Array:
        """How many of the sorted x1 (n,) lie before each element of x2."""
        before = x1 < x2[..., None] if side == "left" else x1 <= x2[..., None]
        return before.astype(int32).sum(-1)

    def matmul(self, a: Array, b: Array) -> Array:
        return matmul(a, b)

    # Loops.

    def helix_scan(
        self, step: Callable[[Any, tuple[Any, ...]], tuple[Any, Array]], carry: Any, xs: tuple[Array | None, ...]
    ) -> tuple[Any, Array]:
        """`carry, y = step(carry, arrays of a step)` over axis 1; every step is the same few kernels."""
        whole = [None if a is None else Array(self.device, a.leaf()) for a in xs]
        length = next(a.shape[1] for a in whole if a is not None)
        carry = tree_map(self._computed, carry)
        out: Leaf | None = None
        shape: Shape = ()
        for t in range(length):
            carry, y = step(carry, tuple(None if a is None else a[:, t] for a in whole))
            carry = tree_map(self._computed, carry)
            if out is None:
                shape = (y.shape[0], length, *y.shape[1:])
                out = Leaf(self.device.allocate(size_of(shape) * y.dtype.itemsize), View.of(shape), y.dtype)
            place = out.view.cut((0, t, *(0,) * (len(shape) - 2)), (1,) * len(shape), (shape[0], 1, *shape[2:]))
            write(self.device, self.expand_dims(y, 1).node, Leaf(out.buffer, place, y.dtype))
        assert out is not None
        return carry, Array(self.device, out)

    def _computed(self, x: Array) -> Array:
        return Array(self.device, x.leaf())
