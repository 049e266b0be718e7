"""Normalisations and softmax: rows in one pass over memory; a work-group shares a row, or an item has its own."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array
from helix_device_arrays.device import Device
from helix_device_arrays.kernels.common import buffer_of, fresh, items, joined, lanes_for, read, written
from helix_device_arrays.nodes import Leaf
from helix_device_arrays.program import Program
from helix_device_arrays.views import size_of


class Rows:
    """The frame of a kernel over rows of `P.over` numbers: loops over a row's vectors, and sums of what items found.

    `width` items of a work-group share a row, or have one each.
    """

    def __init__(self, lanes: int, width: int, together: bool) -> None:
        self.lanes, self.width, self.shared = lanes, width, width if together else 1

    def loop(self, body: str) -> str:
        first, step = (f"lane * {self.lanes}", self.shared * self.lanes) if self.shared > 1 else ("0", self.lanes)
        return f"for (var j: i32 = {first}; j < P.over; j = j + {step}) {{ {body} }}"

    def joined(self, name: str, operation: str) -> str:
        """Make `name`, a number of each item, that of the whole row."""
        return joined(self.shared, name, operation)

    def program(self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], body: str) -> Program:
        if self.shared > 1:
            text = f"let row: i32 = group * P.over;\n{body}"
            shared: tuple[tuple[str, str, int], ...] = (("part", "f32", self.shared),)
        else:
            begin = f"let item: i32 = group * {self.width} + lane;\nif (item < P.count) {{"
            text = f"{begin}\nlet row: i32 = item * P.over;\n{body}\n}}"
            shared = ()
        buffers = (*written(*outputs), *read(*inputs))
        return Program(name, buffers, ("count", "over"), text, self.width, self.lanes, shared)


def _rows(device: Device, over: int) -> tuple[int, int, bool]:
    lanes = lanes_for(device, over)
    return (lanes, device.apart, False) if device.vectors else (lanes, device.rows, True)


def _launch(device: Device, program: Program, outputs: list[Leaf], inputs: list[Array]) -> None:
    shape = outputs[0].shape
    count = size_of(shape[:-1])
    groups = count if program.shared else items(count, program.width)
    buffers = [*(o.buffer for o in outputs), *map(buffer_of, inputs)]
    device.launch(program, buffers, [count, shape[-1]], groups)


@functools.cache
def _rms_norm(lanes: int, width: int, together: bool, adds: bool, eps: float) -> Program:
    rows = Rows(lanes, width, together)
    value = "LOADV(x, row + j) + LOADV(residual, row + j)" if adds else "LOADV(x, row + j)"
    kept = "STOREV(total, row + j, v);" if adds else ""
    again = "LOADV(total, row + j)" if adds else "LOADV(x, row + j)"
    body = f"""
  var squares: vec = splat_(0.0f);
  {rows.loop(f"let v: vec = {value}; {kept} squares = squares + v * v;")}
  var sum: f32 = sum_(squares);
  {rows.joined("sum", "{0} + {1}")}
  let scale: f32 = 1.0f / sqrt(sum / f32(P.over) + {eps!r}f);
  {rows.loop(f"STOREV(y, row + j, {again} * splat_(scale) * LOADV(weight, j));")}"""
    inputs, outputs = ("x", *(("residual",) if adds else ()), "weight"), ("y", *(("total",) if adds else ()))
    return rows.program("rms_norm", inputs, outputs, body)


def rms_norm(x: Array, weight: Array, *, eps: float = 1e-5) -> Array:
    """The op `rms_norm`."""
    how = _rows(x.device, x.shape[-1])
    y = fresh(x.device, x.shape)
    _launch(x.device, _rms_norm(*how, False, eps), [y], [x, weight])
    return Array(x.device, y)


def add_rms_norm(x: Array, residual: Array, weight: Array, *, eps: float = 1e-5) -> tuple[Array, Array]:
    """The op `add_rms_norm`."""
    how = _rows(x.device, x.shape[-1])
    y, total = fresh(x.device, x.shape), fresh(x.device, x.shape)
    _launch(x.device, _rms_norm(*how, True, eps), [y, total], [x, residual, weight])
    return Array(x.device, y), Array(x.device, total)


@functools.cache
def _layer_norm(lanes: int, width: int, together: bool, bias: bool, eps: float) -> Program:
    rows = Rows(lanes, width, together)
    add = " + LOADV(bias, j)" if bias else ""
    body = f"""
  var some: vec = splat_(0.0f);
  {rows.loop("some = some + LOADV(x, row + j);")}
  var mean: f32 = sum_(some);
  {rows.joined("mean", "{0} + {1}")}
  mean = mean / f32(P.over);
  var squares: vec = splat_(0.0f);
  {rows.loop("let v: vec = LOADV(x, row + j) - splat_(mean); squares = squares + v * v;")}
  var sum: f32 = sum_(squares);
  {rows.joined("sum", "{0} + {1}")}
  let scale: vec = splat_(1.0f / sqrt(sum / f32(P.over) + {eps!r}f));
  {rows.loop(f"STOREV(y, row + j, (LOADV(x, row + j) - splat_(mean)) * scale * LOADV(weight, j){add});")}"""
    return rows.program("layer_norm", ("x", "weight", *(("bias",) if bias else ())), ("y",), body)


def layer_norm(x: Array, weight: Array, bias: Array | None = None, *, eps: float = 1e-5) -> Array:
    """The op `layer_norm`."""
    how = _rows(x.device, x.shape[-1])
    y = fresh(x.device, x.shape)
    inputs = [x, weight, *([] if bias is None else [bias])]
    _launch(x.device, _layer_norm(*how, bias is not None, eps), [y], inputs)
    return Array(x.device, y)


@functools.cache
def _softmax(lanes: int, width: int, together: bool) -> Program:
    rows = Rows(lanes, width, together)
    largest = "let v: f32 = x[row + j + i]; top = max_(top, v);"
    body = f"""
  var top: f32 = -inf_();
  {rows.loop(f"for (var i: i32 = 0; i < {lanes}; i = i + 1) {{ {largest} }}")}
  {rows.joined("top", "max_({0}, {1})")}
  var some: vec = splat_(0.0f);
  {rows.loop("let e: vec = exp_v_(LOADV(x, row + j) - splat_(top)); STOREV(y, row + j, e); some = some + e;")}
  var sum: f32 = sum_(some);
  {rows.joined("sum", "{0} + {1}")}
  {rows.loop("STOREV(y, row + j, LOADV(y, row + j) / splat_(sum));")}"""
    return rows.program("softmax", ("x",), ("y",), body)


def softmax(x: Array) -> Array:
    """The op `softmax`."""
    how = _rows(x.device, x.shape[-1])
    y = fresh(x.device, x.shape)
    _launch(x.device, _softmax(*how), [y], [x])
    return Array(x.device, y)
