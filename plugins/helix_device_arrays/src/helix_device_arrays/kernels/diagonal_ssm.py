"""Diagonal state space models with complex states."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array, apply
from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import int32
from helix_device_arrays.evaluate import write
from helix_device_arrays.kernels._arguments import buffer_of, fresh, marks, read, started, written
from helix_device_arrays.kernels._over_time import launch, on_marks, over_time, widths
from helix_device_arrays.nodes import Leaf
from helix_device_arrays.program import Binding, Program

ROOM = 16
"""States are held in multiples of it, so that models with other numbers of them share a program."""


@functools.cache
def _diagonal_ssm(lanes: int, width: int, room: int, marked: bool) -> Program:
    begin = f"""
  var re: array<vec, {room}>;
  var im: array<vec, {room}>;
  for (var n: i32 = 0; n < P.states; n = n + 1) {{
    re[n] = LOADV(state, ((b * 2) * P.states + n) * P.channels + c);
    im[n] = LOADV(state, ((b * 2 + 1) * P.states + n) * P.channels + c);
  }}"""
    clear = "for (var n: i32 = 0; n < P.states; n = n + 1) { re[n] = splat_(0.0f); im[n] = splat_(0.0f); }"
    step = f"""{on_marks(marked, "STOREV(y, at, splat_(0.0f));", clear)}
    let v: vec = LOADV(u, at);
    var out: vec = splat_(0.0f);
    for (var n: i32 = 0; n < P.states; n = n + 1) {{
      let x: vec = LOADV(a, n * P.channels + c);
      let w: vec = LOADV(a, (P.states + n) * P.channels + c);
      let r: vec = x * re[n] - w * im[n] + v;
      im[n] = x * im[n] + w * re[n];
      re[n] = r;
      out = out + LOADV(k, n * P.channels + c) * r - LOADV(k, (P.states + n) * P.channels + c) * im[n];
    }}
    STOREV(y, at, out + out);"""
    end = """
  for (var n: i32 = 0; n < P.states; n = n + 1) {
    STOREV(state, ((b * 2) * P.states + n) * P.channels + c, re[n]);
    STOREV(state, ((b * 2 + 1) * P.states + n) * P.channels + c, im[n]);
  }"""
    buffers = (*written("y", "state"), *read("u", "a", "k"), *((Binding("code", "i32"),) if marked else ()))
    return over_time("diagonal_ssm", lanes, width, begin, step, end, buffers)


def diagonal_ssm(
    u: Array,
    log_a: Array,
    c: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """The op `diagonal_ssm`."""
    device = u.device
    batch, length, channels = u.shape
    states = log_a.shape[1]
    code = marks(reset, lengths, batch, length, device)
    size, angle = apply(device, "exp", (log_a[..., 0],)), log_a[..., 1]
    a = fresh(device, (2, states, channels))
    for i, part in enumerate((size * apply(device, "cos", (angle,)), size * apply(device, "sin", (angle,)))):
        _place(device, part.permute((1, 0)), a, i)
    before = None if initial_state is None else initial_state.permute((0, 3, 2, 1))
    y, state = fresh(device, u.shape), started(device, before, (batch, 2, states, channels))
    program = _diagonal_ssm(*widths(device, channels), -(-states // ROOM) * ROOM, code is not None)
    buffers = [y.buffer, state.buffer, buffer_of(u), a.buffer, buffer_of(c.permute((2, 1, 0)))]
    launch(device, program, [*buffers, *([buffer_of(code, int32)] if code is not None else [])], u.shape, states)
    return Array(device, y), Array(device, state).permute((0, 3, 2, 1))


def _place(device: Device, part: Array, whole: Leaf, index: int) -> None:
    """Evaluate into `whole[index]`."""
    view = whole.view.cut((index, *(0,) * part.ndim), (1,) * (part.ndim + 1), (1, *part.shape))
    write(device, part[None].node, Leaf(whole.buffer, view, whole.dtype))
