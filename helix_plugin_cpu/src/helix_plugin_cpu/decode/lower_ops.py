"""Ops without a state as instructions: products with weights, rows of tables, norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from helix_plugin_cpu.decode.lower_arrays import pointwise
from helix_plugin_cpu.decode.operands import (
    Array,
    have_shapes,
    is_readable,
    is_step,
    norm_row_bytes,
    row_bytes,
    row_count,
    value_of,
)
from helix_plugin_cpu.decode.program import Instruction, own_parts
from helix_plugin_cpu.decode.record import Recorded, Recorder
from helix_plugin_cpu.kernels import _executor
from helix_plugin_cpu.kernels._arguments import CPU, address
from helix_plugin_cpu.kernels._instructions import GATHER, LINEAR, NORM, pack
from helix_plugin_cpu.kernels._products import BLOCK, INT8
from helix_plugin_cpu.kernels._simd import VECTOR


def linear(r: Recorder, x: Recorded, weight: Array, bias: Array | None = None) -> Recorded | None:
    """A product of x (batch, ..., inputs) with a matrix (outputs, inputs), in the format that weights are kept in."""
    if isinstance(weight, Recorded) or isinstance(bias, Recorded) or not is_readable(x, weight, bias):
        return None
    x_v, batch = x.value, x.shape[0]
    outputs, inputs = weight.shape
    if x_v.shape[-1] != inputs or not have_shapes((bias, (outputs,))):
        return None
    if x_v.ndim < 2 or row_count(x_v) != batch or (x_v.stride(-1) != 1 and inputs > 1):
        return None
    stored = r.weight(weight)
    y = r.empty((*x_v.shape[:-1], outputs))
    r.reserve(_executor.SUMS + batch * -(-inputs // BLOCK) * (2 * BLOCK + 16))
    words = pack(
        LINEAR,
        kind=stored.kind,
        x=address(x_v),
        x_row=row_bytes(x_v),
        batch=batch,
        inputs=inputs,
        w=address(stored.data),
        w_row=stored.row,
        bias=address(r.parameter(bias)),
        y=address(y.value),
        y_row=4 * outputs,
        contents=_contents(r, x),
    )
    r.steps.append(
        Instruction(
            words,
            split=("columns", outputs),
            cost=stored.column_bytes,
            reads=[(x_v, False)],
            writes=[(y.value, True)],
            fine=stored.kind != INT8,
        )
    )
    return y


def _contents(r: Recorder, x: Recorded) -> int:
    """A number for what an array holds: equal only for the same numbers at the same place."""
    names = r.contents
    return names.setdefault((x.memory.version, address(x.value), x.value.shape[-1]), len(names) + 1)


def embedding(r: Recorder, tokens: Recorded, weight: Array) -> Recorded | None:
    """Rows of a table (vocabulary, channels) for the tokens of the step, which the decoder has checked."""
    if isinstance(weight, Recorded) or not is_readable(weight) or tokens.dtype != torch.int64:
        return None
    t = tokens.value
    if address(t) != r.tokens or not t.is_contiguous():
        return None  # numbers that nobody has checked
    stored, channels = r.weight(weight), weight.shape[1]
    y = r.empty((*t.shape, channels))
    words = pack(
        GATHER,
        kind=stored.kind,
        tokens=address(t),
        w=address(stored.data),
        w_row=stored.row,
        channels=channels,
        y=address(y.value),
        y_row=4 * channels,
    )
    split, cost = ("rows", t.numel()), 4 * channels
    r.steps.append(Instruction(words, split, cost, reads=[(t, False)], writes=[(y.value, True)]))
    return y


def rms_norm(r: Recorder, x: Array, weight: Array, *, eps: float = 1e-5) -> Recorded | None:
    """Rows of x (..., channels) over their root mean square, times a weight (channels,)."""
    results = _norm(r, x, weight=weight, eps=eps)
    return results and results[0]


def add_rms_norm(
    r: Recorder, x: Array, residual: Array, weight: Array, *, eps: float = 1e-5
) -> tuple[Recorded, Recorded | None] | None:
    """rms_norm of x + residual, and that sum."""
    return _norm(r, x, residual=residual, weight=weight, eps=eps)


def layer_norm(
    r: Recorder, x: Array, weight: Array, bias: Array | None = None, *, eps: float = 1e-5
) -> Recorded | None:
    """Rows of x (..., channels) less their mean, over their standard deviation, times a weight plus a bias."""
    results = _norm(r, x, weight=weight, bias=bias, eps=eps, centred=True)
    return results and results[0]


def _norm(
    r: Recorder,
    x: Array,
    *,
    weight: Array,
    eps: float,
    residual: Array | None = None,
    bias: Array | None = None,
    centred: bool = False,
) -> tuple[Recorded, Recorded | None] | None:
    if isinstance(weight, Recorded) or isinstance(bias, Recorded) or not is_readable(x, residual, weight, bias):
        return None
    x_v, residual_v, channels = value_of(x), value_of(residual), x.shape[-1]
    if not have_shapes((weight, (channels,)), (bias, (channels,)), (residual_v, tuple(x_v.shape))):
        return None
    if not all(a is None or a.is_contiguous() or is_step(a, channels) for a in (x_v, residual_v)):
        return None
    y = r.empty(tuple(x_v.shape))
    sums = None if residual_v is None else r.empty(tuple(x_v.shape))
    sums_v = value_of(sums)
    r.reserve(VECTOR)
    words = pack(
        NORM,
        centred=int(centred),
        x=address(x_v),
        x_row=norm_row_bytes(x_v),
        residual=address(residual_v),
        residual_row=norm_row_bytes(residual_v),
        weight=address(r.parameter(weight)),
        bias=address(r.parameter(bias)),
        eps=address(r.constant(torch.tensor([eps], dtype=torch.float32, device=CPU))),
        y=address(y.value),
        y_row=4 * channels,
        sums=address(sums_v),
        sums_row=4 * channels,
        channels=channels,
    )
    r.steps.append(
        Instruction(
            words,
            split=("rows", row_count(x_v)),
            cost=8 * channels,
            reads=own_parts(x_v, residual_v),
            writes=own_parts(y.value, sums_v),
        )
    )
    return y, sums


def swiglu(r: Recorder, gate: Array, x: Array) -> Recorded | None:
    """silu(gate) times x, elementwise."""
    return pointwise(r, "multiply", pointwise(r, "silu", gate), x) if is_readable(gate, x) else None


LOWER: dict[str, Callable[..., Any]] = {
    op.__name__: op for op in (linear, embedding, rms_norm, add_rms_norm, layer_norm, swiglu)
}
