"""RWKV-4's recurrence."""

from __future__ import annotations

import functools

from helix_core.ops.wkv4 import EMPTY
from helix_device_arrays.array import Array
from helix_device_arrays.dtypes import float32, int32
from helix_device_arrays.evaluate import write
from helix_device_arrays.kernels._arguments import buffer_of, fresh, marks, read, started, written
from helix_device_arrays.kernels._over_time import launch, on_marks, over_time, widths
from helix_device_arrays.nodes import Const, Leaf
from helix_device_arrays.program import Binding, Program


@functools.cache
def _wkv4(lanes: int, width: int, marked: bool, empty: float) -> Program:
    begin = """
  var m: vec = LOADV(state, b * 2 * P.channels + c);
  var z: vec = LOADV(state, (b * 2 + 1) * P.channels + c);
  let w: vec = LOADV(decay, c);
  let first: vec = LOADV(bonus, c);"""
    step = f"""{on_marks(marked, "STOREV(y, at, splat_(0.0f));", f"m = splat_(0.0f); z = splat_({empty!r}f);")}
    let key: vec = LOADV(k, at);
    let value: vec = LOADV(v, at);
    let faded: vec = z + w;
    STOREV(y, at, m + sigmoid_v_(key + first - z) * (value - m));
    m = m + sigmoid_v_(key - faded) * (value - m);
    z = max_v_(key, faded) + log1p_v_(exp_v_(-abs_v_(key - faded)));"""
    end = """
  STOREV(state, b * 2 * P.channels + c, m);
  STOREV(state, (b * 2 + 1) * P.channels + c, z);"""
    code = (Binding("code", "i32"),) if marked else ()
    buffers = (*written("y", "state"), *read("k", "v", "decay", "bonus"), *code)
    return over_time("wkv4", lanes, width, begin, step, end, buffers)


def wkv4(
    k: Array,
    v: Array,
    log_decay: Array,
    bonus: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """The op `wkv4`."""
    device = k.device
    batch, length, channels = k.shape
    code = marks(reset, lengths, batch, length, device)
    state = started(device, initial_state, (batch, 2, channels))
    if initial_state is None:
        view = state.view.cut((0, 1, 0), (1, 1, 1), (batch, 1, channels))
        write(device, Const(EMPTY, (batch, 1, channels), float32), Leaf(state.buffer, view, float32))
    y = fresh(device, k.shape)
    program = _wkv4(*widths(device, channels), code is not None, EMPTY)
    buffers = [y.buffer, state.buffer, *map(buffer_of, (k, v, log_decay, bonus))]
    launch(device, program, [*buffers, *([buffer_of(code, int32)] if code is not None else [])], k.shape)
    return Array(device, y), Array(device, state)
