"""The array that a backend's users see: immutable, on a device, computed when its values are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from helix_core.errors import UsageError
from helix_device_arrays import reduce as reductions
from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import DType, boolean, dtype_of_scalar, float16, float32, int32, promoted, uint8
from helix_device_arrays.evaluate import computed, copied, packed
from helix_device_arrays.nodes import Apply, Const, Gather, Leaf, Node, moved, resolved
from helix_device_arrays.views import Shape, View, broadcast_shapes, size_of

LARGEST = 32
"""Operations in one expression; what is larger is computed before it grows on."""
RECOMPUTED = 1 << 18
"""Slow operations that a broadcast may repeat before its input is computed instead."""
LOGICAL = frozenset({"less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isnan"})
FLOATING = frozenset({"exp", "log", "log1p", "expm1", "tanh", "sin", "cos", "atan2", "sqrt", "divide"})


class Array:
    """An n-dimensional array of a device. Operators and indexing are NumPy's, without writing to elements."""

    __slots__ = ("_node", "device")
    __array_priority__ = 1000

    def __init__(self, device: Device, node: Node) -> None:
        self.device, self._node = device, node

    # What it is.

    @property
    def node(self) -> Node:
        """The expression that it stands for."""
        self._node = resolved(self._node)
        return self._node

    @property
    def shape(self) -> Shape:
        """The size of each axis."""
        return self._node.shape

    @property
    def dtype(self) -> DType:
        """The type of its elements."""
        return self._node.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._node.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return size_of(self._node.shape)

    @property
    def T(self) -> Array:
        """The same elements with the axes in reverse order."""
        return self.permute(tuple(reversed(range(self.ndim))))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array of no axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Array({self.numpy()!r})"

    # Values.

    def numpy(self) -> np.ndarray:
        """Its values, copied from the device."""
        node = self.node
        if isinstance(node, Const):
            return np.full(node.shape, node.value, _host(node.dtype))
        leaf = packed(self.device, node)
        if leaf.view.offset:  # a download starts at the buffer's first byte
            leaf = copied(self.device, leaf)
        found = self.device.download(leaf.buffer, np.empty(leaf.shape, leaf.dtype.host))
        return found.astype(bool) if self.dtype is boolean else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self.numpy()
        return found if dtype is None else found.astype(dtype)

    def _item(self) -> Any:
        if self.size != 1:
            raise TypeError(f"only an array of one element is a number, not one of shape {self.shape}")
        return self.numpy().reshape(())[()]

    def __float__(self) -> float:
        return float(self._item())

    def __int__(self) -> int:
        return int(self._item())

    def __bool__(self) -> bool:
        return bool(self._item())

    __index__ = __int__

    def item(self) -> Any:
        """The one element as a Python number."""
        return self._item().item()

    def tolist(self) -> Any:
        """Its values as nested lists."""
        return self.numpy().tolist()

    def leaf(self) -> Leaf:
        """Its values in a buffer, in any order."""
        return computed(self.device, self.node)

    def packed(self) -> Leaf:
        """Its values in a buffer, one after the other from `view.offset`."""
        return packed(self.device, self.node)

    def _with(self, node: Node) -> Array:
        return Array(self.device, node)

    # Elementwise.

    def apply(self, name: str, *others: Any, dtype: DType | None = None) -> Array:
        """An elementwise operation with others, which are broadcast; see `emit.operation`."""
        return apply(self.device, name, (self, *others), dtype)

    def __add__(self, other: Any) -> Array:
        return self.apply("add", other)

    def __radd__(self, other: Any) -> Array:
        return self.apply("add", other)

    def __sub__(self, other: Any) -> Array:
        return self.apply("subtract", other)

    def __rsub__(self, other: Any) -> Array:
        return apply(self.device, "subtract", (other, self))

    def __mul__(self, other: Any) -> Array:
        return self.apply("multiply", other)

    def __rmul__(self, other: Any) -> Array:
        return self.apply("multiply", other)

    def __truediv__(self, other: Any) -> Array:
        return self.apply("divide", other)

    def __rtruediv__(self, other: Any) -> Array:
        return apply(self.device, "divide", (other, self))

    def __floordiv__(self, other: Any) -> Array:
        return self.apply("floor_divide", other)

    def __mod__(self, other: Any) -> Array:
        return self.apply("remainder", other)

    def __pow__(self, other: Any) -> Array:
        if isinstance(other, int) and 0 < other <= 4:
            found = self
            for _ in range(other - 1):
                found = found * self
            return found
        return self.apply("pow", other)

    def __neg__(self) -> Array:
        return self.apply("negative")

    def __abs__(self) -> Array:
        return self.apply("abs")

    def __lt__(self, other: Any) -> Array:
        return self.apply("less", other)

    def __le__(self, other: Any) -> Array:
        return self.apply("less_equal", other)

    def __gt__(self, other: Any) -> Array:
        return self.apply("greater", other)

    def __ge__(self, other: Any) -> Array:
        return self.apply("greater_equal", other)

    def __eq__(self, other: Any) -> Array:  # type: ignore[override]
        return self.apply("equal", other)

    def __ne__(self, other: Any) -> Array:  # type: ignore[override]
        return self.apply("not_equal", other)

    __hash__ = object.__hash__

    def __and__(self, other: Any) -> Array:
        return self.apply("logical_and" if self.dtype is boolean else "bitwise_and", other)

    def __or__(self, other: Any) -> Array:
        return self.apply("logical_or" if self.dtype is boolean else "bitwise_or", other)

    def __xor__(self, other: Any) -> Array:
        return self.apply("not_equal" if self.dtype is boolean else "bitwise_xor", other)

    def __invert__(self) -> Array:
        return self.apply("logical_not") if self.dtype is boolean else self.apply("bitwise_xor", -1)

    def __rshift__(self, other: Any) -> Array:
        return self.apply("shift_right", other)

    def astype(self, dtype: DType) -> Array:
        """The same values in another dtype."""
        if dtype is self.dtype:
            return self
        node = self.node
        if isinstance(node, Const):
            return self._with(Const(_host(dtype).type(node.value).item(), node.shape, dtype))
        return self._with(Apply("cast", (node,), dtype))

    # Places.

    def _moved(self, move: Callable[[View], View | None], shape: Shape) -> Array:
        node = self.node
        found = moved(node, move, shape)
        if found is None:
            found = moved(packed(self.device, node), move, shape)
            assert found is not None, "packed elements can have any shape"
        return self._with(found)

    def permute(self, axes: tuple[int, ...]) -> Array:
        """Its axes in another order."""
        return self._moved(lambda v: v.permute(axes), tuple(self.shape[a] for a in axes))

    def reshape(self, *shape: Any) -> Array:
        """The same elements in order under another shape; one size may be -1."""
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else tuple(shape)
        if -1 in wanted:
            known = size_of(tuple(n for n in wanted if n != -1))
            wanted = tuple(self.size // max(known, 1) if n == -1 else n for n in wanted)
        if size_of(wanted) != self.size:
            raise ValueError(f"an array of shape {self.shape} cannot be reshaped to {wanted}")
        return self if wanted == self.shape else self._moved(lambda v: v.reshape(wanted), wanted)

    def broadcast(self, shape: Shape) -> Array:
        """Repeated along axes of size 1 and new leading ones."""
        if shape == self.shape:
            return self
        node = self.node
        if broadcast_shapes(node.shape, shape) != shape:
            raise ValueError(f"an array of shape {node.shape} cannot be broadcast to {shape}")
        if isinstance(node, Apply) and node.cost * (size_of(shape) - self.size) > RECOMPUTED:
            node = computed(self.device, node)
        found = moved(node, lambda v: v.broadcast(shape), shape)
        assert found is not None
        return self._with(found)

    def __getitem__(self, key: Any) -> Array:
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, Array | np.ndarray) for k in keys):
            return self._picked(keys)
        given = sum(k is not None and k is not Ellipsis for k in keys)
        if given > self.ndim:
            raise IndexError(f"{given} indices for an array of {self.ndim} axes")
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys = (*keys[:at], *(slice(None),) * (self.ndim - given), *keys[at + 1 :])
        else:
            keys = (*keys, *(slice(None),) * (self.ndim - given))
        starts, steps, sizes, shape, axis = [], [], [], [], 0
        for k in keys:
            if k is None:
                shape.append(1)
                continue
            n = self.shape[axis]
            if isinstance(k, slice):
                start, stop, step = k.indices(n)
                count = len(range(start, stop, step))
                starts.append(start if count else 0)
                steps.append(step)
                shape.append(count)
            else:
                k = int(k)
                if not -n <= k < n:
                    raise IndexError(f"index {k} is outside an axis of size {n}")
                starts.append(k % n)
                steps.append(1)
                count = 1
            sizes.append(count)
            axis += 1
        cut = self._cut(tuple(starts), tuple(steps), tuple(sizes))
        return cut if tuple(shape) == cut.shape else cut._moved(lambda v: v.reshape(tuple(shape)), tuple(shape))

    def _cut(self, starts: Shape, steps: Shape, sizes: Shape) -> Array:
        if sizes == self.shape and all(s == 1 for s in steps):
            return self
        return self._moved(lambda v: v.cut(starts, steps, sizes), sizes)

    def _picked(self, keys: tuple[Any, ...]) -> Array:
        """Rows by an integer array in the first place."""
        first, rest = keys[0], keys[1:]
        if any(r != slice(None) for r in rest if not isinstance(r, Array | np.ndarray)) or len(rest) > self.ndim - 1:
            raise UsageError("an index array selects along the first axis only", hint="use `xp.take`")
        index = first if isinstance(first, Array) else from_numpy(self.device, np.asarray(first))
        if index.dtype.kind != "i" or any(isinstance(r, Array | np.ndarray) for r in rest):
            raise UsageError(
                "elements are selected by one array of whole numbers", hint="use `xp.where` in place of a mask"
            )
        return take(self, index.reshape((-1,)), 0).reshape((*index.shape, *self.shape[1:]))

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    # Reductions.

    def reduced(self, name: str, axis: int | tuple[int, ...] | None, keepdims: bool) -> Array:
        """A reduction of `reduce.JOINS` over some or all axes."""
        axes = axes_of(axis, self.ndim)
        shape = tuple(n for a, n in enumerate(self.shape) if a not in axes)
        found = self._with(reductions.reduce(self.device, name, self.node, axes)) if axes else self
        if keepdims:
            return found.reshape(tuple(1 if a in axes else n for a, n in enumerate(self.shape)))
        return found.reshape(shape)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Array:
        """The sum over axes, all of them by default."""
        return self.reduced("sum", axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Array:
        """The mean over axes, all of them by default."""
        count = size_of(tuple(self.shape[a] for a in axes_of(axis, self.ndim)))
        return self.reduced("sum", axis, keepdims) / max(count, 1)


def axes_of(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))))


def apply(device: Device, name: str, values: tuple[Any, ...], dtype: DType | None = None) -> Array:
    """An elementwise operation on arrays and Python numbers: promoted, broadcast, put into one expression."""
    arrays = [v for v in values if isinstance(v, Array)]
    if any(isinstance(v, np.ndarray) and v.ndim for v in values):
        raise UsageError("arrays of a device and of NumPy do not mix", hint="use the backend's `asarray` first")
    operands = values[1:] if name == "where" else values
    common = promoted(*(v.dtype if isinstance(v, Array) else dtype_of_scalar(v) for v in operands))
    own = [v.dtype for v in operands if isinstance(v, Array)]
    if own and (common.kind == promoted(*own).kind):
        common = promoted(*own)  # a Python number takes the dtype of the arrays
    elif common.kind == "f" and not any(d.kind == "f" for d in own):
        common = float32
    if name in FLOATING and common.kind != "f":
        common = float32
    if name in ("add", "subtract", "multiply", "negative") and common is boolean:
        common = int32
    if name.startswith("logical"):
        common = boolean
    shape = broadcast_shapes(*(a.shape for a in arrays))
    nodes = []
    for position, value in enumerate(values):
        wanted = boolean if name == "where" and position == 0 else common
        if isinstance(value, Array):
            nodes.append(value.astype(wanted).broadcast(shape).node)
        else:
            nodes.append(Const(value, shape, wanted))
    if sum(n.size for n in nodes) > LARGEST:
        nodes = [computed(device, n) if n.size > LARGEST // 4 else n for n in nodes]
    result = dtype or (boolean if name in LOGICAL or name.startswith("logical") else common)
    return Array(device, Apply(name, tuple(nodes), result))


def take(x: Array, index: Array, axis: int) -> Array:
    """Elements `index` (n,) along an axis."""
    axis %= x.ndim
    shape = (*x.shape[:axis], index.size, *x.shape[axis + 1 :])
    spread = index.reshape(tuple(index.size if a == axis else 1 for a in range(x.ndim))).broadcast(shape)
    return _gathered(x, spread, axis, shape)


def take_along_axis(x: Array, index: Array, axis: int) -> Array:
    """Elements of each line along an axis; the other axes have equal sizes, or 1 in `index`."""
    axis %= x.ndim
    shape = tuple(index.shape[a] if a == axis else n for a, n in enumerate(x.shape))
    return _gathered(x, index.broadcast(shape), axis, shape)


def _gathered(x: Array, index: Array, axis: int, shape: Shape) -> Array:
    leaf = x.astype(promoted(x.dtype)).leaf()
    if not leaf.shape[axis] and size_of(shape):
        raise IndexError("an axis of size 0 has no elements to take")
    strides = tuple(0 if a == axis else s for a, s in enumerate(leaf.view.strides))
    view = View(shape, strides, leaf.view.offset)
    node = Gather(leaf.buffer, view, leaf.dtype, leaf.view.strides[axis], leaf.shape[axis], index.astype(int32).node)
    return Array(x.device, node)


def from_numpy(device: Device, array: np.ndarray, dtype: DType | None = None) -> Array:
    """A copy on the device; float64 becomes float32 and int64 int32, uint8 stays. UsageError beyond 32 bits."""
    array = np.asarray(array)
    kind = array.dtype.kind
    if dtype is None:
        dtype = {"b": boolean, "i": int32, "u": int32}.get(kind, float32)
        if array.dtype == np.float16 and device.halves:
            dtype = float16
        elif array.dtype == np.uint8:
            dtype = uint8
    wide = kind in "iu" and array.itemsize > 3 and array.size > 0
    if wide and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise UsageError("an integer needs more than 32 bits, which is all that the device has")
    packed_array = np.ascontiguousarray(array.astype(dtype.host))
    return Array(device, Leaf(device.upload(packed_array), View.of(array.shape), dtype))


def _host(dtype: DType) -> np.dtype[Any]:
    return np.dtype(bool) if dtype is boolean else dtype.host
