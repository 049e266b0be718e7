"""Ops that carry a state as instructions for one step.

Arrays of a step are (batch, 1, channels); A, B, C and D are those of the selective scan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.decode.lower_arrays import pointwise
from helix_plugin_cpu.decode.operands import Array, have_shapes, is_readable, is_step, row_bytes, value_of
from helix_plugin_cpu.decode.program import Instruction, own_parts
from helix_plugin_cpu.decode.record import Recorded, Recorder
from helix_plugin_cpu.kernels._arguments import CPU, address, zeros
from helix_plugin_cpu.kernels._attention_step import scratch_of
from helix_plugin_cpu.kernels._instructions import ATTEND, CONV, SCAN, pack
from helix_plugin_cpu.kernels._math import LOG2_E
from helix_plugin_cpu.kernels._simd import LANES, VECTOR


def causal_conv1d(
    r: Recorder,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    activation: str = "none",
) -> tuple[Recorded, Recorded] | None:
    """A step of a convolution: weight (channels, taps), state (batch, taps - 1, channels)."""
    if reset is not None or lengths is not None or activation not in ("none", "silu"):
        return None
    if isinstance(weight, Recorded) or isinstance(bias, Recorded) or not is_readable(x, initial_state, weight, bias):
        return None
    x_v, batch = value_of(x), x.shape[0]
    channels, taps = weight.shape
    state = (batch, taps - 1, channels)
    if not is_step(x_v, channels) or not have_shapes((initial_state, state), (bias, (channels,))):
        return None
    before, after = _state_after(r, initial_state, state)
    y = r.empty((batch, 1, channels))
    words = pack(
        CONV,
        batch=batch,
        taps=taps,
        channels=channels,
        x=address(x_v),
        x_row=row_bytes(x_v),
        weight=address(r.parameter(weight.T)),
        bias=address(r.parameter(bias)),
        before=address(before),
        after=address(after.value),
        y=address(y.value),
        y_row=4 * channels,
        silu=int(activation == "silu"),
    )
    r.steps.append(
        Instruction(
            words,
            split=("columns", channels),
            cost=16 * taps * batch,
            reads=own_parts(x_v, before),
            writes=own_parts(y.value, after.value),
        )
    )
    return y, after


def selective_scan(
    r: Recorder,
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    z: Array | None = None,
    delta_bias: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    delta_softplus: bool = False,
) -> tuple[Recorded, Recorded] | None:
    """A step of Mamba's recurrence: A (channels, d_state), B and C (batch, 1, d_state), D (channels,)."""
    if reset is not None or lengths is not None:
        return None
    if isinstance(A, Recorded) or isinstance(D, Recorded) or isinstance(delta_bias, Recorded):
        return None
    if not is_readable(u, delta, B, C, z, initial_state, A, D, delta_bias):
        return None
    u_v, delta_v, B_v, C_v, z_v = value_of(u), value_of(delta), value_of(B), value_of(C), value_of(z)
    batch, _, channels = u_v.shape
    d_state = A.shape[1]
    state = (batch, channels, d_state)
    if not all(a is None or is_step(a, channels) for a in (u_v, delta_v, z_v)):
        return None
    if not is_step(B_v, d_state) or not is_step(C_v, d_state):
        return None
    if not have_shapes((A, state[1:]), (D, (channels,)), (delta_bias, (channels,)), (initial_state, state)):
        return None
    before, after = _state_after(r, initial_state, state)
    y = r.empty((batch, 1, channels))
    r.reserve((LANES + 2) * VECTOR)
    words = pack(
        SCAN,
        batch=batch,
        d_state=d_state,
        channels=channels,
        u=address(u_v),
        u_row=row_bytes(u_v),
        delta=address(delta_v),
        delta_row=row_bytes(delta_v),
        A=address(r.parameter(A * LOG2_E)),
        B=address(B_v),
        B_row=row_bytes(B_v),
        C=address(C_v),
        C_row=row_bytes(C_v),
        skip=address(r.parameter(D)),
        z=address(z_v),
        z_row=row_bytes(z_v),
        bias=address(r.parameter(delta_bias)),
        before=address(before),
        after=address(after.value),
        y=address(y.value),
        y_row=4 * channels,
        softplus=int(delta_softplus),
    )
    r.steps.append(
        Instruction(
            words,
            split=("columns", channels),
            cost=16 * d_state * batch,  # an update takes about as long as reading sixteen bytes
            reads=[*own_parts(u_v, delta_v, z_v, before), (B_v, False), (C_v, False)],
            writes=own_parts(y.value, after.value),
        )
    )
    return y, after


def attention(
    r: Recorder,
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
) -> tuple[Recorded, Recorded, Recorded] | None:
    """A step of attention: q (batch, 1, heads, d_key), the model's own cache (batch, size, groups, ...) in place."""
    if position is None or keys is None or values is None or lengths is not None:
        return None
    if not is_readable(q, k, v, keys, values):
        return None
    q_v, k_v, v_v, position_v = value_of(q), value_of(k), value_of(v), value_of(position)
    keys_v, values_v = value_of(keys), value_of(values)
    batch, length, heads, d_key = q_v.shape
    size, groups, d_value = values_v.shape[1:]
    shapes = ((k_v, (batch, 1, groups, d_key)), (v_v, (batch, 1, groups, d_value)), (position_v, (batch, 1)))
    caches = (keys_v, (batch, size, groups, d_key)), (values_v, (batch, size, groups, d_value))
    if length != 1 or not size or window not in (0, size) or not have_shapes(*shapes, *caches):
        return None
    if any(a.stride(3) != 1 and a.shape[3] > 1 for a in (q_v, k_v, v_v)) or position_v.dtype != torch.int64:
        return None
    if not r.in_place or not all(
        isinstance(a, Recorded) and a.value.is_contiguous() and address(a.value) in r.states for a in (keys, values)
    ):
        return None  # a copy of the cache would take longer than the step
    position_v = position_v if position_v.is_contiguous() else r.constant(position_v)
    y = r.empty((batch, 1, heads, d_value))
    r.reserve(scratch_of(size))
    words = pack(
        ATTEND,
        groups=groups,
        heads=heads // groups,
        d_key=d_key,
        d_value=d_value,
        size=size,
        scale=address(r.constant(torch.tensor([scale or d_key**-0.5], dtype=torch.float32, device=CPU))),
        position=address(position_v),
        q=address(q_v),
        q_row=row_bytes(q_v),
        q_head=4 * q_v.stride(2),
        k=address(k_v),
        k_row=row_bytes(k_v),
        k_head=4 * k_v.stride(2),
        v=address(v_v),
        v_row=row_bytes(v_v),
        v_head=4 * v_v.stride(2),
        keys=address(keys_v),
        values=address(values_v),
        y=address(y.value),
        y_row=4 * heads * d_value,
    )
    r.steps.append(
        Instruction(
            words,
            split=("rows", batch * groups),
            cost=4 * size * (d_key + d_value),
            reads=[(a, False) for a in (q_v, k_v, v_v, position_v)],
            writes=[(a, False) for a in (y.value, keys_v, values_v)],
        )
    )
    return y, _overwritten(r, keys), _overwritten(r, values)


def _overwritten(r: Recorder, before: Array) -> Recorded:
    """A state that an instruction has changed where it was."""
    assert isinstance(before, Recorded)
    after = r.array(before.value)
    before.memory.stale = True
    return after


def _state_after(r: Recorder, before: Array | None, shape: tuple[int, ...]) -> tuple[Tensor, Recorded]:
    """Where a state is read and where the new one goes: the same place if it is the model's own state."""
    if before is None:
        return r.constant(zeros(shape)), r.empty(shape)
    value = value_of(before)
    if not value.is_contiguous():
        copied = pointwise(r, "copy", before)
        assert copied is not None
        return copied.value, r.empty(shape)
    if r.in_place and isinstance(before, Recorded) and address(value) in r.states:
        return value, _overwritten(r, before)
    return value, r.empty(shape)


LOWER: dict[str, Callable[..., Any]] = {op.__name__: op for op in (causal_conv1d, selective_scan, attention)}
