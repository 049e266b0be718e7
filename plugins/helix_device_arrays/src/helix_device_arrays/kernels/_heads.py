"""Recurrences of matrix states: linear attention with decay, and with a rank-one change of the state."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array, apply
from helix_device_arrays.device import Device
from helix_device_arrays.kernels._arguments import (
    PADDING,
    RESET,
    buffer_of,
    fresh,
    items,
    lanes_for,
    marks,
    read,
    started,
    written,
)
from helix_device_arrays.program import Program

ROOM = 32
"""Keys are held in multiples of it, so that models with other numbers of them share a program."""
IN_VECTORS = 64
"""Keys up to which items that run side by side hold vectors: more are compiled for seconds, to run twice as fast."""


@functools.cache
def _heads(lanes: int, width: int, room: int, marked: bool, moves: bool) -> Program:
    """An item has some columns of a head's state. Decays below 0 are marks: -1 a document starts, -2 padding."""
    moving = """
    var m: vec = splat_(0.0f);
    for (var k: i32 = 0; k < P.keys; k = k + 1) { m = m + splat_(a[at + k]) * s[k]; }"""
    marking = f"""
    if (w[at] == {-PADDING}.0f) {{ STOREV(y, to, splat_(0.0f)); continue; }}
    let whole: f32 = select(1.0f, 0.0f, w[at] == {-RESET}.0f);
    if (whole == 0.0f) {{
      for (var k: i32 = 0; k < P.keys; k = k + 1) {{ s[k] = splat_(0.0f); }}
    }}"""
    decay = "splat_(whole * w[at + k])" if marked else "splat_(w[at + k])"
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let chunks: i32 = P.values / {lanes};
  let c: i32 = (item % chunks) * {lanes};
  let head: i32 = (item / chunks) % P.heads;
  let b: i32 = item / (chunks * P.heads);
  let own: i32 = (b * P.heads + head) * P.keys * P.values + c;
  var s: array<vec, {room}>;
  for (var k: i32 = 0; k < P.keys; k = k + 1) {{ s[k] = LOADV(state, own + k * P.values); }}
  for (var t: i32 = 0; t < P.length; t = t + 1) {{
    let step: i32 = (b * P.length + t) * P.heads + head;
    let at: i32 = step * P.keys;
    let to: i32 = step * P.values + c;
    {marking if marked else ""}
    let x: vec = LOADV(v, to);
    {moving if moves else ""}
    var out: vec = splat_(0.0f);
    for (var k: i32 = 0; k < P.keys; k = k + 1) {{
      s[k] = {decay} * s[k] + splat_(key[at + k]) * x{" + splat_(b_[at + k]) * m" if moves else ""};
      out = out + splat_(r[at + k]) * s[k];
    }}
    STOREV(y, to, out);
  }}
  for (var k: i32 = 0; k < P.keys; k = k + 1) {{ STOREV(state, own + k * P.values, s[k]); }}
}}"""
    buffers = (*written("y", "state"), *read("r", "w", "key", "v", *(("a", "b_") if moves else ())))
    return Program("heads", buffers, ("count", "values", "heads", "length", "keys"), body, width, lanes)


def run(
    r: Array,
    decay: Array,
    k: Array,
    v: Array,
    change: tuple[Array, Array] | None,
    initial_state: Array | None,
    reset: Array | None,
    lengths: Array | None,
) -> tuple[Array, Array]:
    """S_t = diag(decay_t) S_{t-1} + b_t (S_{t-1}ᵀ a_t)ᵀ + k_t v_tᵀ,  y_t = S_tᵀ r_t; `change` is (a, b)."""
    device: Device = v.device
    batch, length, heads, keys = r.shape
    values = v.shape[3]
    code = marks(reset, lengths, batch, length, device)
    if code is not None:
        spread = code[:, :, None, None]
        decay = apply(device, "where", (spread == 0, decay, spread.astype(decay.dtype) * -1.0))
    decay = decay.broadcast((batch, length, heads, keys))
    y, state = fresh(device, v.shape), started(device, initial_state, (batch, heads, keys, values))
    vectors = device.vectors and (device.apart == 1 or keys <= IN_VECTORS)
    lanes = lanes_for(device, values) if vectors else 1
    program = _heads(lanes, device.apart, -(-keys // ROOM) * ROOM, code is not None, change is not None)
    buffers = [y.buffer, state.buffer, *map(buffer_of, (r, decay, k, v, *(change or ())))]
    count = batch * heads * values // lanes
    device.launch(program, buffers, [count, values, heads, length, keys], items(count, device.apart))
    return Array(device, y), Array(device, state)


def exp(x: Array) -> Array:
    """e to the power of each element."""
    return apply(x.device, "exp", (x,))
