"""Attention with a running softmax: an item has a query, and no matrix of scores is ever there."""

from __future__ import annotations

import functools

import numpy as np

from helix_device_arrays.array import Array
from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import int32
from helix_device_arrays.kernels._arguments import buffer_of, fresh, items, lanes_for, read, written
from helix_device_arrays.program import Binding, Program


@functools.cache
def _attention(lanes: int, width: int, d_key: int, d_value: int, placed: bool, cached: bool, padded: bool) -> Program:
    keys, values = d_key // lanes, d_value // lanes

    def seen(k: str, v: str, key_at: str, value_at: str) -> str:
        return f"""
      var dot: vec = splat_(0.0f);
      for (var d: i32 = 0; d < {keys}; d = d + 1) {{ dot = dot + query[d] * LOADV({k}, {key_at} + d * {lanes}); }}
      let score: f32 = sum_(dot);
      if (score > top) {{
        let fade: f32 = exp_(top - score);
        total = total * fade;
        for (var d: i32 = 0; d < {values}; d = d + 1) {{ out[d] = out[d] * splat_(fade); }}
        top = score;
      }}
      let weight: f32 = exp_(score - top);
      total = total + weight;
      for (var d: i32 = 0; d < {values}; d = d + 1) {{
        out[d] = out[d] + splat_(weight) * LOADV({v}, {value_at} + d * {lanes});
      }}"""

    before = f"""
  let start: i32 = position[b * P.length];
  for (var s: i32 = 0; s < P.slots; s = s + 1) {{
    let held: i32 = start - 1 - floormod_(start - 1 - s, P.slots);
    let at: i32 = held - start;
    if (held >= 0 && at >= i - here && i - at < window) {{
      let slot: i32 = (b * P.slots + s) * P.groups_ + g;
      {seen("old_keys", "old_values", f"slot * {d_key}", f"slot * {d_value}")}
    }}
  }}"""
    padding = f"""
  if (i >= lengths[b]) {{
    for (var d: i32 = 0; d < {values}; d = d + 1) {{ STOREV(y, to + d * {lanes}, splat_(0.0f)); }}
    return;
  }}"""
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let i: i32 = item % P.length;
  let h: i32 = (item / P.length) % P.heads;
  let b: i32 = item / (P.length * P.heads);
  let g: i32 = h / (P.heads / P.groups_);
  let from_: i32 = ((b * P.length + i) * P.heads + h) * {d_key};
  let to: i32 = ((b * P.length + i) * P.heads + h) * {d_value};
  {padding if padded else ""}
  let here: i32 = {"position[b * P.length + i]" if placed else "i"};
  let window: i32 = select(P.window, 2147483647, P.window == 0);
  var query: array<vec, {keys}>;
  var out: array<vec, {values}>;
  for (var d: i32 = 0; d < {keys}; d = d + 1) {{ query[d] = LOADV(q, from_ + d * {lanes}) * splat_(float_(P.scale)); }}
  for (var d: i32 = 0; d < {values}; d = d + 1) {{ out[d] = splat_(0.0f); }}
  var top: f32 = -3.0e38f;
  var total: f32 = 0.0f;
  {before if cached else ""}
  for (var j: i32 = max(max(0, i - here), i - window + 1); j <= i; j = j + 1) {{
    let step: i32 = (b * P.length + j) * P.groups_ + g;
    {seen("k", "v", f"step * {d_key}", f"step * {d_value}")}
  }}
  for (var d: i32 = 0; d < {values}; d = d + 1) {{ STOREV(y, to + d * {lanes}, out[d] / splat_(total)); }}
}}"""
    optional = [name for flag, name in ((placed, "position"), (padded, "lengths")) if flag]
    buffers = (*written("y"), *read("q", "k", "v"), *(Binding(name, "i32") for name in optional))
    buffers = (*buffers, *(read("old_keys", "old_values") if cached else ()))
    params = ("count", "length", "heads", "groups_", "slots", "window", "scale")
    return Program("attention", buffers, params, body, width, lanes)


@functools.cache
def _cache(width: int, placed: bool, padded: bool) -> Program:
    """What every slot holds after the last step: position p lies in slot p % slots, the newest are kept."""
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let rest: i32 = item % P.row;
  let s: i32 = (item / P.row) % P.slots;
  let b: i32 = item / (P.row * P.slots);
  let end: i32 = {"min(lengths[b], P.length)" if padded else "P.length"};
  let first: i32 = {"position[b * P.length]" if placed else "0"};
  let count: i32 = select(first, {"position[b * P.length + max(end - 1, 0)]" if placed else "end - 1"} + 1, end > 0);
  let held: i32 = count - 1 - floormod_(count - 1 - s, P.slots);
  let step: i32 = end - count + held;
  var value: f32 = old[item];
  if (step >= 0) {{ value = new_[(b * P.length + min(step, P.length - 1)) * P.row + rest]; }}
  out[item] = select(0.0f, value, held >= 0);
}}"""
    optional = [name for flag, name in ((placed, "position"), (padded, "lengths")) if flag]
    buffers = (*written("out"), *read("old", "new_"), *(Binding(name, "i32") for name in optional))
    return Program("attention_cache", buffers, ("count", "length", "slots", "row"), body, width)


def attention(
    q: Array,
    k: Array,
    v: Array,
    position: Array | None = None,
    keys: Array | None = None,
    values: Array | None = None,
    lengths: Array | None = None,
    *,
    window: int = 0,
    scale: float = 0.0,
) -> tuple[Array, Array, Array]:
    """The op `attention`."""
    device: Device = q.device
    batch, length, heads, d_key = q.shape
    groups, d_value = k.shape[2], v.shape[3]
    xp = device.namespace
    slots = 0 if keys is None else keys.shape[1]
    if 0 in (batch, length):
        nothing = Array(device, fresh(device, (batch, length, heads, d_value)))
        return nothing, k[:, :0] if keys is None else keys, v[:, :0] if values is None else values
    cached = slots > 0
    if cached and position is None:
        position = xp.broadcast_to(xp.arange(length)[None], (batch, length))
    if device.vectors:
        lanes, width = lanes_for(device, d_key, d_value), device.apart
    else:
        lanes, width = 1, device.width
    y = fresh(device, (batch, length, heads, d_value))
    places = [buffer_of(a, int32) for a in (position, lengths) if a is not None]
    bits = int(np.float32(scale or d_key**-0.5).view(np.int32))
    old = [buffer_of(keys), buffer_of(values)] if cached and keys is not None and values is not None else []
    new = [buffer_of(k), buffer_of(v)]
    flags = (position is not None, cached, lengths is not None)
    program = _attention(lanes, width, d_key, d_value, *flags)
    count = batch * length * heads
    params = [count, length, heads, groups, slots, window, bits]
    device.launch(program, [y.buffer, buffer_of(q), *new, *places, *old], params, items(count, width))
    kept = []
    for i, width_ in enumerate((d_key, d_value)):
        out = fresh(device, (batch, slots, groups, width_))
        if cached:
            count, row = batch * slots * groups * width_, groups * width_
            program = _cache(device.width, position is not None, lengths is not None)
            buffers = [out.buffer, old[i], new[i], *places]
            device.launch(program, buffers, [count, length, slots, row], items(count, device.width))
        kept.append(Array(device, out))
    return Array(device, y), kept[0], kept[1]
