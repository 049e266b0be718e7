"""Evaluation: expressions become buffers, one kernel for all the operations in them."""

from __future__ import annotations

from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import promoted
from helix_device_arrays.emit import Emitter
from helix_device_arrays.nodes import Apply, Gather, Leaf, Node, resolved
from helix_device_arrays.operations import store
from helix_device_arrays.program import Binding, Program
from helix_device_arrays.views import View, size_of


def computed(device: Device, node: Node) -> Leaf:
    """The leaf of a buffer with the values of a node; of its own buffer for leaves."""
    node = resolved(node)
    if isinstance(node, Leaf):
        return node
    buffer = device.allocate(size_of(node.shape) * node.dtype.itemsize)
    leaf = Leaf(buffer, View.of(node.shape), node.dtype)
    write(device, node, leaf)
    if isinstance(node, Apply):
        node.done = leaf
        node.args = ()  # what it was computed from may go
    return leaf


def packed(device: Device, node: Node) -> Leaf:
    """Like `computed`, but the elements lie one after the other."""
    leaf = computed(device, node)
    if leaf.view.is_contiguous:
        return leaf
    return copied(device, leaf)


def copied(device: Device, node: Node) -> Leaf:
    """The values of a node in a buffer of their own, from its first byte on."""
    dtype = promoted(node.dtype)
    copy = Leaf(device.allocate(size_of(node.shape) * dtype.itemsize), View.of(node.shape), dtype)
    write(device, node, copy)
    return copy


def write(device: Device, node: Node, target: Leaf) -> None:
    """Evaluate a node into the elements of `target`, which must not be among those it reads."""
    count = size_of(node.shape)
    if not count:
        return
    share(device, [node])
    emitter = Emitter([node], len(node.shape), [target.view])
    lines, (value,) = emitter.values_at()
    stored = store("out", target.dtype, emitter.place(0), value)
    sizes = emitter.sizes
    width = device.width
    names, values = list(emitter.names), list(emitter.values)
    if len(sizes) <= 1 or sizes[-1] >= 2 * width:
        # A row at a time: only the work-group's row needs divisions.
        inner = len(sizes) - 1
        names.append("blocks")
        values.append(-(-(sizes[-1] if sizes else 1) // width))
        if inner > 0:
            head = ["let row: i32 = group / P.blocks;", *emitter.indices("row", range(inner))]
            head.append(f"let i{inner}: i32 = (group % P.blocks) * {width} + lane;")
        else:
            head = [f"let i0: i32 = group * {width} + lane;"]
        limit = f"i{inner} < P.n{inner}" if sizes else "i0 < 1"
        body = "\n".join([*head, f"if ({limit}) {{", *lines, stored, "}"])
        groups = values[-1] * size_of(tuple(sizes[:-1]))
    else:
        names.append("count")
        values.append(count)
        head = [f"let item: i32 = group * {width} + lane;", "if (item < P.count) {"]
        body = "\n".join([*head, *emitter.indices("item", range(len(sizes))), *lines, stored, "}"])
        groups = -(-count // width)
    bindings = (Binding("out", target.dtype.stored, writes=True), *emitter.bindings)
    program = Program("elementwise", bindings, tuple(names), body, width)
    device.launch(program, [target.buffer, *emitter.buffers], values, groups)


def share(device: Device, roots: list[Node]) -> None:
    """Compute what several kernels would otherwise each compute again, and what reads more than one may."""
    seen: set[int] = set()
    for root in roots:
        _share(device, root, seen, True)
    while True:
        buffers: set[int] = set()
        for root in roots:
            _buffers(root, buffers, set())
        if len(buffers) < device.max_buffers - len(roots):
            return
        inner = [a for root in roots for a in _inside(resolved(root))]
        if not inner:
            return
        computed(device, max(inner, key=lambda a: a.size))


def _share(device: Device, node: Node, seen: set[int], top: bool) -> None:
    node = resolved(node)
    if id(node) in seen or not isinstance(node, Apply):
        return
    seen.add(id(node))
    if not top and node.used and node.cost:
        computed(device, node)
        return
    node.used += 1
    for arg in node.args:
        _share(device, arg, seen, False)


def _inside(node: Node) -> list[Apply]:
    """The operations right below a node that could be computed first."""
    if not isinstance(node, Apply):
        return []
    return [a for a in map(resolved, node.args) if isinstance(a, Apply)]


def _buffers(node: Node, found: set[int], seen: set[int]) -> None:
    node = resolved(node)
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, Leaf | Gather):
        found.add(id(node.buffer))
    if isinstance(node, Apply):
        for arg in node.args:
            _buffers(arg, found, seen)
