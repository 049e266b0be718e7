"""Long convolutions over time: term by term for few terms, else by transforms."""

from __future__ import annotations

import functools

from helix_core.ops.long_conv import uneven
from helix_device_arrays.array import Array
from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import float32, int32
from helix_device_arrays.evaluate import write
from helix_device_arrays.kernels._arguments import RESET, buffer_of, fresh, items, lanes_for, marks, read, written
from helix_device_arrays.kernels._transforms import transform
from helix_device_arrays.nodes import Leaf
from helix_device_arrays.program import Binding, Program
from helix_device_arrays.views import View

DIRECT = 96
"""Up to so many terms a sum, a convolution is computed as it is written."""


@functools.cache
def _direct(lanes: int, width: int, marked: bool) -> Program:
    """Terms from the newest on; a sum ends where its document began, so a row of short ones is cheap."""
    stop = f"if (p >= P.old && code[b * P.length + max(p - P.old, 0)] == {RESET}) {{ break; }}" if marked else ""
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let chunks: i32 = P.channels / {lanes};
  let c: i32 = (item % chunks) * {lanes};
  let t: i32 = (item / chunks) % P.length;
  let b: i32 = item / (chunks * P.length);
  let end: i32 = t + P.old;
  let row: i32 = b * (P.length + P.old);
  var sum: vec = splat_(0.0f);
  var part: vec = splat_(0.0f);
  for (var s: i32 = 0; s < min(P.taps, end + 1); s = s + 1) {{
    let p: i32 = end - s;
    part = part + LOADV(f, s * P.channels + c) * LOADV(v, (row + p) * P.channels + c);
    if (s % 64 == 63) {{ sum = sum + part; part = splat_(0.0f); }}
    {stop}
  }}
  STOREV(y, (b * P.length + t) * P.channels + c, sum + part);
}}"""
    buffers = (*written("y"), *read("v", "f"), *((Binding("code", "i32"),) if marked else ()))
    return Program("long_conv_direct", buffers, ("count", "channels", "length", "old", "taps"), body, width, lanes)


def long_conv(
    u: Array,
    filter: Array,
    pre: Array | None = None,
    post: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> Array:
    """The op `long_conv`: term by term for few terms and for rows of documents or that grow, else by transforms."""
    device = u.device
    xp = device.namespace
    batch, length, channels = u.shape
    v = u if pre is None else u * pre
    padding = marks(None, lengths, batch, length, device)
    real = None if padding is None else (padding == 0)[..., None]
    if real is not None:
        v = xp.where(real, v, 0.0)
    old = 0 if initial_state is None else initial_state.shape[1]
    if initial_state is not None:
        v = xp.concat([initial_state, v], axis=1)
    taps = min(filter.shape[0], old + length)
    v = Array(device, v.leaf())
    if reset is not None or min(taps, length) <= DIRECT or bool(uneven(xp, v)):
        y = fresh(device, u.shape)
        lanes = lanes_for(device, channels) if device.vectors else 1
        count = batch * length * channels // lanes
        coded = [] if reset is None else [buffer_of(reset.astype(int32) * RESET, int32)]
        program = _direct(lanes, device.width, reset is not None)
        buffers = [y.buffer, buffer_of(v), buffer_of(filter), *coded]
        device.launch(program, buffers, [count, channels, length, old, taps], items(count, device.width))
        found = Array(device, y)
    else:
        found = _by_transforms(device, v, filter[:taps], old)
    if post is not None:
        found = found * post
    return found if real is None else xp.where(real, found, 0.0)


@functools.cache
def _product(lanes: int, width: int) -> Program:
    """Spectra of two channels in one are parted, multiplied with those of the filter, and joined, in place."""

    def parted(re: str, im: str) -> str:
        """The two real sequences' spectra at k, from those of the joint one at k and n - k."""
        return f"""
  let {re}1: vec = ({re}k + {re}m) * splat_(0.5f);
  let {im}1: vec = ({im}k - {im}m) * splat_(0.5f);
  let {re}2: vec = ({im}k + {im}m) * splat_(0.5f);
  let {im}2: vec = ({re}m - {re}k) * splat_(0.5f);"""

    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let chunks: i32 = P.channels / {lanes};
  let c: i32 = (item % chunks) * {lanes};
  let k: i32 = (item / chunks) % (P.n / 2 + 1);
  let b: i32 = item / (chunks * (P.n / 2 + 1));
  let m: i32 = (P.n - k) % P.n;
  let at: i32 = (b * P.n + k) * P.channels + c;
  let other: i32 = (b * P.n + m) * P.channels + c;
  let rek: vec = LOADV(re, at);
  let imk: vec = LOADV(im, at);
  let rem: vec = LOADV(re, other);
  let imm: vec = LOADV(im, other);
  let gk: vec = LOADV(fre, k * P.channels + c);
  let hk: vec = LOADV(fim, k * P.channels + c);
  let gm: vec = LOADV(fre, m * P.channels + c);
  let hm: vec = LOADV(fim, m * P.channels + c);
  {parted("re", "im")}
  {parted("g", "h")}
  let p1: vec = re1 * g1 - im1 * h1;
  let q1: vec = re1 * h1 + im1 * g1;
  let p2: vec = re2 * g2 - im2 * h2;
  let q2: vec = re2 * h2 + im2 * g2;
  STOREV(re, at, p1 - q2);
  STOREV(im, at, q1 + p2);
  if (other != at) {{
    STOREV(re, other, p1 + q2);
    STOREV(im, other, p2 - q1);
  }}
}}"""
    buffers = (*written("re", "im"), *read("fre", "fim"))
    return Program("spectra", buffers, ("count", "channels", "n"), body, width, lanes)


def _by_transforms(device: Device, v: Array, filter: Array, old: int) -> Array:
    """y (B, L, D) of v (B, old + L, D) and a filter (K, D), without what wraps around."""
    xp = device.namespace
    batch, given, channels = v.shape
    if channels % 2:  # two channels make one complex sequence
        v = xp.concat([v, xp.zeros((batch, given, 1))], axis=2)
        filter = xp.concat([filter, xp.zeros((filter.shape[0], 1))], axis=1)
    half = v.shape[2] // 2
    lanes = lanes_for(device, half) if device.vectors else 1
    n = 1 << (given + filter.shape[0] - 2).bit_length()
    planes = transform(device, [buffer_of(v)], batch, half, n, lanes, given)
    spectrum = transform(device, [buffer_of(filter)], 1, half, n, lanes, filter.shape[0])
    count = batch * (n // 2 + 1) * half // lanes
    program = _product(lanes, device.width)
    device.launch(program, [*planes, *spectrum], [count, half, n], items(count, device.width))
    # With the planes exchanged, the transform is its own inverse but for the factor.
    im, re = transform(device, planes[::-1], batch, half, n, lanes, None)
    out = fresh(device, (batch, given - old, channels))
    for i, plane in enumerate((re, im)):
        width = min(half, channels - i * half)
        wave = Array(device, Leaf(plane, View.of((batch, n, half)), float32))[:, old:given, :width] * (1 / n)
        place = out.view.cut((0, 0, i * half), (1, 1, 1), (batch, given - old, width))
        write(device, wave.node, Leaf(out.buffer, place, float32))
    return Array(device, out)
