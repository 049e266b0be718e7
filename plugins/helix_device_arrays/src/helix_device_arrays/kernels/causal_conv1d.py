"""Short convolutions over time: all taps of a step at once, history and documents included."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array
from helix_device_arrays.dtypes import int32
from helix_device_arrays.kernels._arguments import (
    PADDING,
    RESET,
    buffer_of,
    fresh,
    items,
    lanes_for,
    marks,
    read,
    written,
)
from helix_device_arrays.program import Binding, Program


@functools.cache
def _short(lanes: int, width: int, marked: bool, bias: bool, before: bool, silu: bool) -> Program:
    """The sums of every step; channels lie in items next to each other."""
    stop = f"if (p >= 0 && code[b * P.length + max(p, 0)] == {RESET}) {{ break; }}" if marked else ""
    old = """else {
    let known: i32 = (b * P.kept + p + P.kept) * P.channels + c;
    sum = sum + LOADV(weight, (P.kept - j) * P.channels + c) * LOADV(before, known);
  }"""
    padded = f"if (code[b * P.length + t] == {PADDING}) {{ STOREV(y, at, splat_(0.0f)); return; }}" if marked else ""
    body = f"""
let item: i32 = group * {width} + lane;
if (item >= P.count) {{ return; }}
let chunks: i32 = P.channels / {lanes};
let step: i32 = item / chunks;
let c: i32 = (item - step * chunks) * {lanes};
let b: i32 = step / P.length;
let t: i32 = step - b * P.length;
let at: i32 = step * P.channels + c;
{padded}
var sum: vec = {"LOADV(bias, c)" if bias else "splat_(0.0f)"};
for (var j: i32 = 0; j <= P.kept; j = j + 1) {{
  let p: i32 = t - j;
  if (p >= 0) {{
    sum = sum + LOADV(weight, (P.kept - j) * P.channels + c) * LOADV(x, at - j * P.channels);
  }}
  {old if before else ""}
  {stop}
}}
STOREV(y, at, {"silu_v_(sum)" if silu else "sum"});"""
    extra = (*(("bias",) if bias else ()), *(("before",) if before else ()))
    buffers = (*written("y"), *read("x", "weight", *extra), *((Binding("code", "i32"),) if marked else ()))
    return Program("causal_conv1d", buffers, ("count", "channels", "length", "kept"), body, width, lanes)


@functools.cache
def _short_state(width: int, marked: bool, before: bool) -> Program:
    """The last `P.kept` inputs of every row, from x and from the state before it."""
    end = """
  var end: i32 = P.length;
  var start: i32 = -P.kept;
  for (var t: i32 = P.length - 1; t >= 0; t = t - 1) {
    if (code[b * P.length + t] == PADDING) { end = t; }
  }
  for (var t: i32 = 0; t < end; t = t + 1) {
    if (code[b * P.length + t] == RESET) { start = t; }
  }""".replace("PADDING", str(PADDING)).replace("RESET", str(RESET))
    plain = "let end: i32 = P.length;\nlet start: i32 = -P.kept;"
    old = "if (p < 0) { value = before[(b * P.kept + p + P.kept) * P.channels + c]; }" if before else ""
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let c: i32 = item % P.channels;
  let i: i32 = (item / P.channels) % P.kept;
  let b: i32 = item / (P.channels * P.kept);
  {end if marked else plain}
  let p: i32 = end - P.kept + i;
  var value: f32 = 0.0f;
  if (p >= start) {{
    if (p >= 0) {{ value = x[(b * P.length + p) * P.channels + c]; }}
    {old}
  }}
  last[item] = value;
}}"""
    buffers = (*written("last"), *read("x", *(("before",) if before else ())))
    buffers = (*buffers, *((Binding("code", "i32"),) if marked else ()))
    return Program("conv_state", buffers, ("count", "channels", "length", "kept"), body, width)


def causal_conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    activation: str = "none",
) -> tuple[Array, Array]:
    """The op `causal_conv1d`."""
    if activation not in ("none", "silu"):
        raise ValueError(f"activation must be 'none' or 'silu', not {activation!r}")
    device = x.device
    batch, length, channels = x.shape
    taps = weight.shape[1]
    code = marks(reset, lengths, batch, length, device)
    before = initial_state if taps > 1 else None
    lanes, width = lanes_for(device, channels) if device.vectors else 1, device.width
    y, last = fresh(device, x.shape), fresh(device, (batch, taps - 1, channels))
    given = buffer_of(x)
    old = [] if before is None else [buffer_of(before)]
    coded = [] if code is None else [buffer_of(code, int32)]
    flags = (code is not None, bias is not None, before is not None, activation == "silu")
    inputs = [given, buffer_of(weight.permute((1, 0))), *([] if bias is None else [buffer_of(bias)]), *old, *coded]
    count = batch * length * channels // lanes
    program = _short(lanes, width, *flags)
    device.launch(program, [y.buffer, *inputs], [count, channels, length, taps - 1], items(count, width))
    count = batch * (taps - 1) * channels
    params = [count, channels, length, taps - 1]
    program = _short_state(width, code is not None, before is not None)
    device.launch(program, [last.buffer, given, *old, *coded], params, items(count, width))
    return Array(device, y), Array(device, last)
