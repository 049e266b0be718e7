"""Sums, maxima and running sums along axes, of expressions that are evaluated on the way."""

from __future__ import annotations

from collections.abc import Callable

from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import DType, float32, int32
from helix_device_arrays.emit import Emitter
from helix_device_arrays.evaluate import packed, share
from helix_device_arrays.nodes import Leaf, Node, moved
from helix_device_arrays.operations import cast, literal, operation, store
from helix_device_arrays.program import Binding, Program
from helix_device_arrays.views import View, contiguous, size_of

STARTS = {"sum": 0, "prod": 1, "max": float("-inf"), "min": float("inf")}
JOINS = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}
PART = 64
"""Elements that are summed before they are added to the rest: long sums stay exact."""


def last_axes(node: Node, axes: tuple[int, ...]) -> tuple[Node, int]:
    """The node with `axes` moved behind the others, and how many others there are."""
    kept = [a for a in range(len(node.shape)) if a not in axes]
    order = [*kept, *axes]
    turned = moved(node, lambda v: v.permute(order), tuple(node.shape[a] for a in order))
    assert turned is not None
    return turned, len(kept)


def reduce(device: Device, name: str, node: Node, axes: tuple[int, ...]) -> Leaf:
    """One of `JOINS` over some axes, which are gone from the result."""
    share(device, [node])
    node, kept = last_axes(node, axes)
    dtype = _accumulator(node.dtype)
    shape = node.shape[:kept]
    target = Leaf(device.allocate(size_of(shape) * dtype.itemsize), View.of(shape), dtype)
    over = View(node.shape, (*contiguous(shape), *(0,) * (len(node.shape) - kept)))
    emitter = Emitter([node], kept, [over])
    lines, (value,) = emitter.values_at()
    value = cast(value, node.dtype, dtype)
    first = emitter.before
    inner = range(first, len(emitter.sizes))
    start = _start(name, dtype)

    def joined(a: str, b: str) -> str:
        return operation(JOINS[name], [a, b], [dtype, dtype], dtype)

    names, values = [*emitter.names, "count", "over"], [*emitter.values, size_of(shape), size_of(node.shape[kept:])]
    element = [*emitter.indices("r", inner), *lines]
    bindings = (Binding("out", dtype.stored, writes=True), *emitter.bindings)
    outer = emitter.indices("item", range(first))
    stored = store("out", dtype, emitter.place(0), "total")
    if device.rows > 1 and values[-1] >= 32:
        width = device.rows
        body = "\n".join(
            [
                "let item: i32 = group;", *outer,
                f"var total: {dtype.computed} = {start};",
                f"for (var r: i32 = lane; r < P.over; r = r + {width}) {{",
                *element, f"total = {joined('total', value)};", "}",
                "part[lane] = total;", "workgroupBarrier();",
                f"for (var s: i32 = {width // 2}; s > 0; s = s / 2) {{",
                f"if (lane < s) {{ part[lane] = {joined('part[lane]', 'part[lane + s]')}; }}",
                "workgroupBarrier();", "}",
                "if (lane == 0) {", "total = part[0];", stored, "}",
            ]
        )  # fmt: skip
        program = Program(name, bindings, tuple(names), body, width, shared=(("part", dtype.computed, width),))
        groups = size_of(shape)
    else:
        width = device.width
        body = "\n".join(
            [
                f"let item: i32 = group * {width} + lane;", "if (item < P.count) {", *outer,
                f"var total: {dtype.computed} = {start};",
                f"for (var p: i32 = 0; p < P.over; p = p + {PART}) {{",
                f"var some: {dtype.computed} = {start};",
                f"let end: i32 = min(p + {PART}, P.over);",
                "for (var r: i32 = p; r < end; r = r + 1) {",
                *element, f"some = {joined('some', value)};", "}",
                f"total = {joined('total', 'some')};", "}", stored, "}",
            ]
        )  # fmt: skip
        program = Program(name, bindings, tuple(names), body, width)
        groups = -(-size_of(shape) // width)
    device.launch(program, [target.buffer, *emitter.buffers], values, groups)
    return target


def cumulative_sum(device: Device, node: Node, axis: int) -> Leaf:
    """Running sums along an axis, of the shape of the node."""
    share(device, [node])
    shape = node.shape
    turned, kept = last_axes(node, (axis,))
    dtype = _accumulator(node.dtype)
    target = Leaf(device.allocate(size_of(shape) * dtype.itemsize), View.of(shape), dtype)
    order = [*(a for a in range(len(shape)) if a != axis), axis]
    emitter = Emitter([turned], kept, [target.view.permute(order)])
    lines, (value,) = emitter.values_at()
    first = emitter.before
    many = size_of(turned.shape[:kept])
    names, values = [*emitter.names, "count", "over"], [*emitter.values, many, shape[axis]]
    element = [*emitter.indices("r", range(first, len(emitter.sizes))), *lines]
    # Steps are added to `some`, and that to `total` from time to time: long sums stay exact.
    zero = _start("sum", dtype)
    step = [*element, f"some = some + {cast(value, node.dtype, dtype)};"]
    write = store("out", dtype, emitter.place(0), "total + some")
    step_on = [*step, write, f"if (r % {PART} == {PART - 1}) {{ total = total + some; some = {zero}; }}"]
    start = [f"var total: {dtype.computed} = {zero};", f"var some: {dtype.computed} = {zero};"]
    bindings = (Binding("out", dtype.stored, writes=True), *emitter.bindings)
    outer = emitter.indices("item", range(first))
    if device.rows > 1 and shape[axis] >= 256:
        width = device.rows
        loop = "for (var r: i32 = lane * P.over; r < min((lane + 1) * P.over, P.whole); r = r + 1) {"
        values[-1] = -(-shape[axis] // width)
        names.append("whole")
        values.append(shape[axis])
        body = "\n".join(
            [
                "let item: i32 = group;", *outer, *start,
                loop, *step, "}", "part[lane] = some;", "workgroupBarrier();", f"some = {zero};",
                "for (var q: i32 = 0; q < lane; q = q + 1) {", "total = total + part[q];", "}",
                loop, *step_on, "}",
            ]
        )  # fmt: skip
        program = Program("running_sum", bindings, tuple(names), body, width, shared=(("part", dtype.computed, width),))
        groups = many
    else:
        width = device.width
        body = "\n".join(
            [
                f"let item: i32 = group * {width} + lane;", "if (item < P.count) {", *outer, *start,
                "for (var r: i32 = 0; r < P.over; r = r + 1) {", *step_on, "}", "}",
            ]
        )  # fmt: skip
        program = Program("running_sum", bindings, tuple(names), body, width)
        groups = -(-many // width)
    device.launch(program, [target.buffer, *emitter.buffers], values, groups)
    return target


def argmax(device: Device, node: Node) -> Leaf:
    """The first place of the largest element along the last axis; NaN counts as largest."""
    x = packed(device, node)
    shape = x.shape[:-1]
    out = Leaf(device.allocate(size_of(shape) * 4), View.of(shape), int32)
    nan = _nan(x.dtype)
    body = f"""
let item: i32 = group * {device.width} + lane;
if (item < P.count) {{
  var best: {x.dtype.stored} = x[P.start + item * P.over];
  var at: i32 = 0;
  for (var r: i32 = 1; r < P.over; r = r + 1) {{
    let v: {x.dtype.stored} = x[P.start + item * P.over + r];
    if (v > best || ({nan("v")} && !{nan("best")})) {{
      best = v;
      at = r;
    }}
  }}
  out[item] = at;
}}"""
    program = Program(
        "argmax",
        (Binding("out", "i32", True), Binding("x", x.dtype.stored)),
        ("count", "over", "start"),
        body,
        device.width,
    )
    count = size_of(shape)
    device.launch(program, [out.buffer, x.buffer], [count, x.shape[-1], x.view.offset], -(-count // device.width))
    return out


def argsort(device: Device, node: Node, descending: bool) -> Leaf:
    """Places of the elements in order along the last axis, equal ones as they came, NaN last: each counts its rank."""
    x = packed(device, node)
    out = Leaf(device.allocate(size_of(x.shape) * 4), View.of(x.shape), int32)
    nan = _nan(x.dtype)
    order = ">" if descending else "<"
    body = f"""
let item: i32 = group * {device.width} + lane;
if (item < P.count) {{
  let row: i32 = item / P.over;
  let at: i32 = item % P.over;
  let own: {x.dtype.stored} = x[P.start + item];
  var rank: i32 = 0;
  for (var r: i32 = 0; r < P.over; r = r + 1) {{
    let v: {x.dtype.stored} = x[P.start + row * P.over + r];
    let before: bool = v {order} own || ({nan("own")} && !{nan("v")});
    let after: bool = own {order} v || ({nan("v")} && !{nan("own")});
    if (before || (!after && r < at)) {{
      rank = rank + 1;
    }}
  }}
  out[row * P.over + rank] = at;
}}"""
    program = Program(
        "argsort",
        (Binding("out", "i32", True), Binding("x", x.dtype.stored)),
        ("count", "over", "start"),
        body,
        device.width,
    )
    count = size_of(x.shape)
    device.launch(program, [out.buffer, x.buffer], [count, x.shape[-1], x.view.offset], -(-count // device.width))
    return out


def _nan(dtype: DType) -> Callable[[str], str]:
    """Whether a value is NaN, which whole numbers never are."""
    return (lambda name: f"isnan_({name})") if dtype.kind == "f" else (lambda name: "false")


def _accumulator(dtype: DType) -> DType:
    return float32 if dtype.kind == "f" else int32


def _start(name: str, dtype: DType) -> str:
    if dtype.kind == "i" and name in ("max", "min"):
        return "i32(-2147483647)" if name == "max" else "i32(2147483647)"
    return literal(STARTS[name], dtype)
