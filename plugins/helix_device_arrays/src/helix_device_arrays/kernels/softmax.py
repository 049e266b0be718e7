"""Softmax of rows."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array
from helix_device_arrays.kernels._arguments import fresh
from helix_device_arrays.kernels._rows import Rows, frame_of, launch
from helix_device_arrays.program import Program


@functools.cache
def _softmax(lanes: int, width: int, together: bool) -> Program:
    rows = Rows(lanes, width, together)
    largest = "let v: f32 = x[row + j + i]; top = max_(top, v);"
    body = f"""
  var top: f32 = -inf_();
  {rows.loop(f"for (var i: i32 = 0; i < {lanes}; i = i + 1) {{ {largest} }}")}
  {rows.joined("top", "max_({0}, {1})")}
  var sums: vec = splat_(0.0f);
  {rows.loop("let e: vec = exp_v_(LOADV(x, row + j) - splat_(top)); STOREV(y, row + j, e); sums = sums + e;")}
  var sum: f32 = sum_(sums);
  {rows.joined("sum", "{0} + {1}")}
  {rows.loop("STOREV(y, row + j, LOADV(y, row + j) / splat_(sum));")}"""
    return rows.program("softmax", ("x",), ("y",), body)


def softmax(x: Array) -> Array:
    """The op `softmax`."""
    how = frame_of(x.device, x.shape[-1])
    y = fresh(x.device, x.shape)
    launch(x.device, _softmax(*how), [y], [x])
    return Array(x.device, y)
