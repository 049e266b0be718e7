"""Recurrences of single channels: an item walks through time with the states of its channels."""

from __future__ import annotations

from helix_device_arrays.device import Buffer, Device
from helix_device_arrays.kernels._arguments import PADDING, RESET, items, lanes_for
from helix_device_arrays.program import Binding, Program


def on_marks(marked: bool, on_padding: str, on_reset: str) -> str:
    """What an item does at a step that is padding, and where a document starts."""
    if not marked:
        return ""
    return f"""
    let mark: i32 = code[row + t];
    if (mark == {PADDING}) {{ {on_padding} continue; }}
    if (mark == {RESET}) {{ {on_reset} }}"""


def over_time(
    name: str, lanes: int, width: int, begin: str, step: str, end: str, buffers: tuple[Binding, ...]
) -> Program:
    """`begin`, then `step` at every t, then `end`.

    `c` is the first channel, `row` the place of (b, 0) and `at` of (b, t, c).
    """
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let chunks: i32 = P.channels / {lanes};
  let c: i32 = (item % chunks) * {lanes};
  let b: i32 = item / chunks;
  let row: i32 = b * P.length;
  {begin}
  for (var t: i32 = 0; t < P.length; t = t + 1) {{
    let at: i32 = (row + t) * P.channels + c;
    {step}
  }}
  {end}
}}"""
    return Program(name, buffers, ("count", "channels", "length", "states"), body, width, lanes)


def launch(device: Device, program: Program, buffers: list[Buffer], shape: tuple[int, ...], states: int = 0) -> None:
    """Run a program of `over_time` on (B, L, D)."""
    batch, length, channels = shape
    count = batch * channels // program.lanes
    device.launch(program, buffers, [count, channels, length, states], items(count, program.width))


def widths(device: Device, channels: int) -> tuple[int, int]:
    """Lanes and items of a work-group; on graphics cards, items next to each other read next to each other."""
    return (lanes_for(device, channels) if device.vectors else 1), device.apart
