"""First-order recurrences."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array
from helix_device_arrays.dtypes import int32
from helix_device_arrays.kernels._arguments import buffer_of, fresh, marks, read, started, written
from helix_device_arrays.kernels._over_time import launch, on_marks, over_time, widths
from helix_device_arrays.program import Binding, Program


@functools.cache
def _linear_scan(lanes: int, width: int, marked: bool) -> Program:
    begin = "var h: vec = LOADV(state, b * P.channels + c);"
    step = f"""{on_marks(marked, "STOREV(y, at, splat_(0.0f));", "h = splat_(0.0f);")}
    h = LOADV(a, at) * h + LOADV(x, at);
    STOREV(y, at, h);"""
    end = "STOREV(state, b * P.channels + c, h);"
    buffers = (*written("y", "state"), *read("a", "x"), *((Binding("code", "i32"),) if marked else ()))
    return over_time("linear_scan", lanes, width, begin, step, end, buffers)


def linear_scan(
    a: Array, x: Array, initial_state: Array | None = None, reset: Array | None = None, lengths: Array | None = None
) -> tuple[Array, Array]:
    """The op `linear_scan`."""
    device = x.device
    batch, length, channels = x.shape
    code = marks(reset, lengths, batch, length, device)
    y, state = fresh(device, x.shape), started(device, initial_state, (batch, channels))
    program = _linear_scan(*widths(device, channels), code is not None)
    buffers = [
        y.buffer,
        state.buffer,
        buffer_of(a),
        buffer_of(x),
        *([buffer_of(code, int32)] if code is not None else []),
    ]
    launch(device, program, buffers, x.shape)
    return Array(device, y), Array(device, state)
