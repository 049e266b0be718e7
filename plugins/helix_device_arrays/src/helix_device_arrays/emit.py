"""From an expression to the text of a kernel that evaluates it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helix_device_arrays.device import Buffer
from helix_device_arrays.nodes import Apply, Const, Gather, Iota, Leaf, Node, resolved
from helix_device_arrays.operations import literal, operation
from helix_device_arrays.program import Binding
from helix_device_arrays.views import View, collapsed

INLINE = (0, 1, -1, 2, 0.5)
"""Constants that stand in the text of a kernel, where compilers make use of them."""


class Emitter:
    """Collects what the expressions of one kernel read, then writes them down for chosen axes.

    The axes of all views are merged where they can be walked as one, but never across `boundary`.
    """

    def __init__(self, roots: list[Node], boundary: int, outputs: Sequence[View] = ()) -> None:
        self.roots = roots
        self.order: list[Node] = []
        self._number: dict[int, int] = {}
        for root in roots:
            self._visit(root)
        self.views: list[View] = list(outputs)
        self._view_of: dict[View, int] = {}
        self.buffers: list[Buffer] = []
        self.bindings: list[Binding] = []
        self._buffer_of: dict[tuple[int, str], int] = {}
        self._bind_reads()
        shape = View.of(roots[0].shape)
        self.sizes, (_, *self.strides), self.before = collapsed([shape, *self.views], boundary)
        # Parameters of the kernel. Programs are told apart by their names, in this order.
        self.names: list[str] = [f"n{i}" for i in range(len(self.sizes))]
        self.values: list[int] = list(self.sizes)
        self._places = [self._written_place(i, offset=i < len(outputs)) for i in range(len(self.views))]
        self._name_constants()

    def _visit(self, node: Node) -> None:
        """Put a node behind all that it reads."""
        node = resolved(node)
        if id(node) in self._number:
            return
        if isinstance(node, Apply):
            for arg in node.args:
                self._visit(arg)
        self._number[id(node)] = len(self.order)
        self.order.append(node)

    def _bind_reads(self) -> None:
        """Number the views that are walked, and bind the buffers that are read."""
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

    def _written_place(self, view: int, *, offset: bool) -> str:
        """The index of the current element in the buffer of a view; with `offset` even where that is 0."""
        terms = []
        if self.views[view].offset or offset:
            terms.append(self._param(f"o{view}", self.views[view].offset))
        for axis, stride in enumerate(self.strides[view]):
            if stride == 1:
                terms.append(f"i{axis}")
            elif stride:
                terms.append(f"i{axis} * {self._param(f's{view}_{axis}', stride)}")
        return " + ".join(terms) or "0"

    def _name_constants(self) -> None:
        """Make parameters of the numbers that are not part of the text, and of the tables that are looked up in."""
        for number, node in enumerate(self.order):
            if isinstance(node, Const) and node.dtype.kind != "b" and node.value not in INLINE:
                stored = np.array(node.value, node.dtype.computed.replace("f32", "f4").replace("i32", "i4"))
                self._param(f"c{number}", int(stored.view(np.int32)))
            if isinstance(node, Gather):
                self._param(f"g{number}", node.stride)
                self._param(f"e{number}", node.extent)

    def _param(self, name: str, value: int) -> str:
        self.names.append(name)
        self.values.append(value)
        return f"P.{name}"

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
