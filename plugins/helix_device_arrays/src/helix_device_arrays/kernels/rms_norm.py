"""Root mean square normalisation."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array
from helix_device_arrays.kernels._arguments import fresh
from helix_device_arrays.kernels._rows import Rows, frame_of, launch
from helix_device_arrays.program import Program


@functools.cache
def program_of(lanes: int, width: int, together: bool, adds: bool, eps: float) -> Program:
    """The kernel of `rms_norm`, and of `add_rms_norm` where it `adds` a residual first."""
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
    how = frame_of(x.device, x.shape[-1])
    y = fresh(x.device, x.shape)
    launch(x.device, program_of(*how, False, eps), [y], [x, weight])
    return Array(x.device, y)
