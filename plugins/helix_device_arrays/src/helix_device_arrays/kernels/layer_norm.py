"""Layer normalisation."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array
from helix_device_arrays.kernels._arguments import fresh
from helix_device_arrays.kernels._rows import Rows, frame_of, launch
from helix_device_arrays.program import Program


@functools.cache
def _layer_norm(lanes: int, width: int, together: bool, bias: bool, eps: float) -> Program:
    rows = Rows(lanes, width, together)
    add = " + LOADV(bias, j)" if bias else ""
    body = f"""
  var sums: vec = splat_(0.0f);
  {rows.loop("sums = sums + LOADV(x, row + j);")}
  var mean: f32 = sum_(sums);
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
    how = frame_of(x.device, x.shape[-1])
    y = fresh(x.device, x.shape)
    inputs = [x, weight, *([] if bias is None else [bias])]
    launch(x.device, _layer_norm(*how, bias is not None, eps), [y], inputs)
    return Array(x.device, y)
