"""Expressions: what an array that has not been computed yet is made of.

Leaves read a buffer, a constant or the numbers of the elements; operations combine nodes of one shape, element by
element. Slices, transpositions and broadcasts are moved down to the leaves, so they never copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_device_arrays.device import Buffer
from helix_device_arrays.dtypes import DType
from helix_device_arrays.views import Shape, View

COSTLY = frozenset({"exp", "log", "log1p", "expm1", "tanh", "sin", "cos", "atan2", "pow", "sqrt", "divide", "gather"})


class Node:
    """An expression with a shape and a dtype. `size`: how many operations it takes; `cost`: how many are slow."""

    __slots__ = ("__weakref__", "cost", "dtype", "shape", "size")
    shape: Shape
    dtype: DType
    size: int
    cost: int


class Leaf(Node):
    """Elements of a buffer."""

    __slots__ = ("buffer", "view")

    def __init__(self, buffer: Buffer, view: View, dtype: DType) -> None:
        self.buffer, self.view, self.dtype, self.shape, self.size, self.cost = buffer, view, dtype, view.shape, 0, 0


class Const(Node):
    """One number everywhere."""

    __slots__ = ("value",)

    def __init__(self, value: Any, shape: Shape, dtype: DType) -> None:
        self.value, self.shape, self.dtype, self.size, self.cost = value, shape, dtype, 0, 0


class Iota(Node):
    """The place of an element in a view: `arange` and what slices and broadcasts make of it."""

    __slots__ = ("view",)

    def __init__(self, view: View, dtype: DType) -> None:
        self.view, self.shape, self.dtype, self.size, self.cost = view, view.shape, dtype, 0, 0


class Apply(Node):
    """An elementwise operation. `done` is its buffer's leaf once it is computed, `used` counts the kernels with it."""

    __slots__ = ("args", "done", "name", "used")

    def __init__(self, name: str, args: tuple[Node, ...], dtype: DType) -> None:
        self.name, self.args, self.dtype, self.shape = name, args, dtype, args[0].shape
        self.size = 1 + sum(a.size for a in args)
        self.cost = (name in COSTLY) + sum(a.cost for a in args)
        self.done: Leaf | None = None
        self.used = 0


class Gather(Apply):
    """`buffer[view + stride * index]`, the index from another expression, counted from the end where negative."""

    __slots__ = ("buffer", "extent", "stride", "view")

    def __init__(self, buffer: Buffer, view: View, dtype: DType, stride: int, extent: int, index: Node) -> None:
        super().__init__("gather", (index,), dtype)
        self.buffer, self.view, self.stride, self.extent = buffer, view, stride, extent


def resolved(node: Node) -> Node:
    """The node, or the leaf that it has been computed into."""
    return node.done if isinstance(node, Apply) and node.done is not None else node


def moved(node: Node, move: Callable[[View], View | None], shape: Shape) -> Node | None:
    """An expression whose elements are taken from other places; None if a leaf has no strides for that."""
    return _moved(node, move, shape, {})


# No function within the function: one that calls itself would keep everything it saw until Python looks for cycles.
def _moved(node: Node, move: Callable[[View], View | None], shape: Shape, seen: dict[int, Node | None]) -> Node | None:
    node = resolved(node)
    key = id(node)
    if key in seen:
        return seen[key]
    found: Node | None = None
    if isinstance(node, Const):
        found = Const(node.value, shape, node.dtype)
    elif isinstance(node, Leaf):
        view = move(node.view)
        found = None if view is None else Leaf(node.buffer, view, node.dtype)
    elif isinstance(node, Iota):
        view = move(node.view)
        found = None if view is None else Iota(view, node.dtype)
    elif isinstance(node, Apply):
        args = [_moved(arg, move, shape, seen) for arg in node.args]
        if all(arg is not None for arg in args):
            if isinstance(node, Gather):
                view = move(node.view)
                if view is not None and args[0] is not None:
                    found = Gather(node.buffer, view, node.dtype, node.stride, node.extent, args[0])
            else:
                found = Apply(node.name, tuple(arg for arg in args if arg is not None), node.dtype)
    seen[key] = found
    return found
