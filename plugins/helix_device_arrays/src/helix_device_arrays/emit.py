"""From an expression to the text of a kernel that evaluates it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from helix_device_arrays.device import Buffer
from helix_device_arrays.dtypes import DType
from helix_device_arrays.nodes import Apply, Const, Gather, Iota, Leaf, Node, resolved
from helix_device_arrays.program import Binding
from helix_device_arrays.views import View, collapsed

INFIX = {
    "add": "+", "subtract": "-", "divide": "/",
    "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=",
    "bitwise_xor": "^", "bitwise_and": "&", "bitwise_or": "|",
}  # fmt: skip
CALLS = {
    "exp": "exp_", "log": "log_", "log1p": "log1p_", "expm1": "expm1_", "tanh": "tanh_", "sin": "sin_", "cos": "cos_",
    "atan2": "atan2_", "sqrt": "sqrt", "abs": "abs_", "floor": "floor", "round": "round_",
    "pow": "pow_",
}  # fmt: skip

INLINE = (0, 1, -1, 2, 0.5)
"""Constants that stand in the text of a kernel, where compilers make use of them."""


def literal(value: Any, dtype: DType) -> str:
    """A number in the kernel language."""
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.kind == "i":
        return f"i32({int(value)})"
    value = float(np.float32(value))
    if math.isnan(value):
        return "nan_()"
    if math.isinf(value):
        return "inf_()" if value > 0 else "(-inf_())"
    text = repr(float(f"{value:.9g}"))
    return f"({text}f)" if value < 0 or str(value) == "-0.0" else f"{text}f"


class Emitter:
    """Collects what the expressions of one kernel read, then writes them down for chosen axes.

    The axes of all views are merged where they can be walked as one, but never across `boundary`.
    """

    def __init__(self, roots: list[Node], boundary: int, outputs: list[View] | None = None) -> None:
        self.roots = roots
        self.order: list[Node] = []
        self._index: dict[int, int] = {}
        for root in roots:
            self._visit(root)
        self.views: list[View] = list(outputs or [])
        self._view_of: dict[View, int] = {}
        self.buffers: list[Buffer] = []
        self.bindings: list[Binding] = []
        self._buffer_of: dict[tuple[int, str], int] = {}
        for node in self.order:
            if isinstance(node, Leaf | Iota | Gather) and node.view not in self._view_of:
                self._view_of[node.view] = len(self.views)
                self.views.append(node.view)
            if isinstance(node, Leaf | Gather):
                key = (id(node.buffer), node.dtype.stored)
                if key not in self._buffer_of:
                    self._buffer_of[key] = len(self.buffers)
                    self.buffers.append(node.buffer)
                    self.bindings.append(Binding(f"b{len(self.bindings)}", node.dtype.stored))
        shape = View.of(roots[0].shape)
        self.sizes, strides, self.before = collapsed([shape, *self.views], boundary)
        self.strides = strides[1:]
        self.names: list[str] = [f"n{i}" for i in range(len(self.sizes))]
        self.values: list[int] = list(self.sizes)
        self._places: dict[int, str] = {}
        for i, (view, own) in enumerate(zip(self.views, self.strides, strict=True)):
            terms = []
            if view.offset or i < len(outputs or []):
                terms.append(self._param(f"o{i}", view.offset))
            for axis, stride in enumerate(own):
                if stride == 1:
                    terms.append(f"i{axis}")
                elif stride:
                    terms.append(f"i{axis} * {self._param(f's{i}_{axis}', stride)}")
            self._places[i] = " + ".join(terms) or "0"
        for node in self.order:
            if isinstance(node, Const) and node.dtype.kind != "b" and node.value not in INLINE:
                number = np.array(node.value, node.dtype.computed.replace("f32", "f4").replace("i32", "i4"))
                self._param(f"c{self._index[id(node)]}", int(number.view(np.int32)))
            if isinstance(node, Gather):
                self._param(f"g{self._index[id(node)]}", node.stride)
                self._param(f"e{self._index[id(node)]}", node.extent)

    def _param(self, name: str, value: int) -> str:
        self.names.append(name)
        self.values.append(value)
        return f"P.{name}"

    def _visit(self, node: Node) -> None:
        node = resolved(node)
        if id(node) in self._index:
            return
        if isinstance(node, Apply):
            for arg in node.args:
                self._visit(arg)
        self._index[id(node)] = len(self.order)
        self.order.append(node)

    def place(self, view: int) -> str:
        """The index of the current element in the buffer of a view."""
        return self._places[view]

    def indices(self, flat: str, axes: range) -> list[str]:
        """Statements that give `i<axis>` of the element with number `flat` in these axes."""
        lines, rest = [], flat
        for axis in reversed(axes):
            if axis == axes[0]:
                lines.append(f"let i{axis}: i32 = {rest};")
            else:
                # One division: processors' drivers do it float by float.
                lines.append(f"let r{axis}: i32 = {rest} / P.n{axis};")
                lines.append(f"let i{axis}: i32 = {rest} - r{axis} * P.n{axis};")
                rest = f"r{axis}"
        return lines

    def values_at(self) -> tuple[list[str], list[str]]:
        """Statements that evaluate the roots at `i0, i1, ...`, and the names of their values."""
        lines: list[str] = []
        names: dict[int, str] = {}
        for number, node in enumerate(self.order):
            if isinstance(node, Const):
                names[id(node)] = self._constant(node, number)
                continue
            lines.append(f"let v{number}: {node.dtype.computed} = {self._expression(node, number, names)};")
            names[id(node)] = f"v{number}"
        return lines, [names[id(resolved(root))] for root in self.roots]

    def _constant(self, node: Const, number: int) -> str:
        """A number of the text, or one that is given at the launch: other numbers are then no other programs."""
        if node.dtype.kind == "b" or node.value in INLINE:
            return literal(node.value, node.dtype)
        return f"float_(P.c{number})" if node.dtype.kind == "f" else f"P.c{number}"

    def _load(self, node: Leaf | Gather, place: str) -> str:
        name = self.bindings[self._buffer_of[id(node.buffer), node.dtype.stored]].name
        if node.dtype.stored == "f16":
            return f"LOADH({name}, {place})"
        if node.dtype.stored == "u8":
            return f"LOADB({name}, {place})"
        return f"({name}[{place}] != 0)" if node.dtype.kind == "b" else f"{name}[{place}]"

    def _expression(self, node: Node, number: int, names: dict[int, str]) -> str:
        if isinstance(node, Leaf):
            return self._load(node, self._places[self._view_of[node.view]])
        if isinstance(node, Iota):
            place = self._places[self._view_of[node.view]]
            return place if node.dtype.kind == "i" else f"f32({place})"
        assert isinstance(node, Apply)
        args = [names[id(resolved(a))] for a in node.args]
        if isinstance(node, Gather):
            place = f"{self._places[self._view_of[node.view]]} + P.g{number} * clamped_({args[0]}, P.e{number})"
            return self._load(node, place)
        return operation(node.name, args, [a.dtype for a in node.args], node.dtype)


def operation(name: str, args: list[str], dtypes: list[DType], result: DType) -> str:
    """An elementwise operation on values."""
    kind = dtypes[0].kind
    if name in INFIX:
        return f"({args[0]} {INFIX[name]} {args[1]})"
    if name == "multiply":
        return f"mul_({args[0]}, {args[1]})" if kind == "i" else f"({args[0]} * {args[1]})"
    if name == "shift_right":
        return f"({args[0]} >> u32({args[1]}))"
    if name == "remainder":
        return f"floormod_({args[0]}, {args[1]})" if kind == "i" else f"fmod_({args[0]}, {args[1]})"
    if name == "floor_divide":
        return f"floordiv_({args[0]}, {args[1]})" if kind == "i" else f"floor({args[0]} / {args[1]})"
    if name in ("maximum", "minimum"):
        return f"{name[:3]}{'_' if kind == 'f' else ''}({args[0]}, {args[1]})"
    if name == "where":
        return f"select({args[2]}, {args[1]}, {args[0]})"
    if name == "negative":
        return f"(-{args[0]})"
    if name == "logical_and":
        return f"({args[0]} && {args[1]})"
    if name == "logical_or":
        return f"({args[0]} || {args[1]})"
    if name == "logical_not":
        return f"(!{args[0]})"
    if name == "isnan":
        return f"isnan_({args[0]})" if kind == "f" else "false"
    if name == "cast":
        return cast(args[0], dtypes[0], result)
    return f"{CALLS[name]}({args[0]}{''.join(f', {a}' for a in args[1:])})"


def cast(value: str, found: DType, wanted: DType) -> str:
    """A value of another dtype."""
    if found.computed == wanted.computed:
        return value
    if wanted.kind == "b":
        return f"({value} != {literal(0, found)})"
    if found.kind == "b":
        return f"select({literal(0, wanted)}, {literal(1, wanted)}, {value})"
    return f"{wanted.computed}({value})"


def store(name: str, dtype: DType, place: str, value: str) -> str:
    """Write a value into a buffer."""
    if dtype.stored == "f16":
        return f"STOREH({name}, {place}, {value});"
    return f"{name}[{place}] = {f'select(0, 1, {value})' if dtype.kind == 'b' else value};"
