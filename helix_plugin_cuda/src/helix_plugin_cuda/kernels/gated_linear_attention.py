"""Gated linear attention, RetNet and their relatives in tiles of time: see `_linear_attention`.

B sequences, L positions, H heads, K and V widths of a head's keys and values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_plugin_cuda.kernels import _linear_attention_run as attention
from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, named
from helix_plugin_cuda.kernels._fused_recurrent import MOST_STEPS, Steps, fused_recurrent
from helix_plugin_cuda.kernels._linear_attention_run import Problem, check_width, effective, gate_slope
from helix_plugin_torch.arguments import Shape, check, dense, rows

NAMES = ("q", "k", "v", "log_decay", "initial_state", "reset", "lengths")


def residuals(q: Shape, k: Shape, v: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every chunk, and the last one."""
    return attention.residual_shapes(v[0], v[1], v[2], q[3], v[3])


def forward(*arrays: Tensor | None, scale: float = 1.0) -> tuple[Tensor, ...]:
    """The seven inputs of the op, in its order -> y (B, L, H, V), last_state (B, H, K, V) float32.

    Raises TypeError for float64, ValueError for shapes that do not fit, UsageError for heads wider than 256.
    """
    given = _checked(arrays)
    if 0 < given["v"].shape[1] <= MOST_STEPS:
        same = {name: given[name] for name in ("q", "k", "v", "log_decay", "reset", "lengths")}
        return fused_recurrent(Steps(**same, initial=given["initial_state"], scale=scale, dtype=_dtype(given)))
    return _run(given, _problem(given, scale), None)


def forward_train(*arrays: Tensor | None, scale: float = 1.0) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    p = _problem(given, scale)
    kept, last = (
        torch.empty(shape, dtype=torch.float32, device=p.v.device) for shape in attention.residual_shapes(*p.sizes)
    )
    outputs = _run(given, p, kept)
    return outputs, (kept, last.copy_(outputs[1].view(-1)))


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    scale: float = 1.0,
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)
    p = _problem(given, scale)
    dy = torch.zeros(p.v.shape, dtype=torch.float32, device=p.v.device) if grads[0] is None else dense(grads[0])
    kept, last = saved
    found = attention.backward(p, kept, last, dy, dense(grads[1]))
    log_decay, initial = given["log_decay"], given["initial_state"]
    gates = gate_slope(found.gates, log_decay, given["reset"], p.ends)
    for axis in (0, 1, 3):
        if log_decay.shape[axis] == 1 and gates.shape[axis] > 1:
            gates = gates.sum(axis, keepdim=True)
    return (
        found.q.to(given["q"].dtype),
        found.k.to(given["k"].dtype),
        found.v.to(given["v"].dtype),
        gates.to(log_decay.dtype),
        None if initial is None else found.initial.to(initial.dtype),
        None,
        None,
    )


def _run(given: dict[str, Any], p: Problem, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    B, L, H, K, V = p.sizes
    y = torch.empty(B, L, H, V, dtype=_dtype(given), device=p.v.device)
    last = torch.empty(B, H, K, V, dtype=torch.float32, device=p.v.device)
    attention.forward(p, y, last, kept)
    return y, last


def _dtype(given: dict[str, Any]) -> torch.dtype:
    return activation_dtype(*(given[name] for name in NAMES[:5]))


def _problem(given: dict[str, Any], scale: float) -> Problem:
    v, log_decay = given["v"], given["log_decay"]
    row_ends = ends(given["lengths"], v.shape[1])
    gates = log_decay.expand(v.shape[0], v.shape[1], v.shape[2], log_decay.shape[3])
    return Problem(
        q=given["q"], k=given["k"], v=v, gates=effective(gates, given["reset"], row_ends), factor=None,
        initial=dense(given["initial_state"]), ends=row_ends, skip=None, scale=scale,
    )  # fmt: skip


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given = named("gated_linear_attention", NAMES, arrays, 4)
    q, v, log_decay = given["q"], given["v"], given["log_decay"]
    if q.ndim != 4 or v.ndim != 4 or log_decay.ndim != 4:
        raise ValueError("gated_linear_attention: q, k, v and log_decay must have four axes")
    (B, L, H, K), V = q.shape, v.shape[3]
    check_width("gated_linear_attention", K, V)
    decay = tuple(1 if have == 1 else size for have, size in zip(log_decay.shape, (B, L, H, K), strict=True))
    shapes = ((B, L, H, K), (B, L, H, K), (B, L, H, V), (*decay[:2], H, decay[3]), (B, H, K, V), (B, L), (B,))
    check("gated_linear_attention", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    return {**given, **{name: rows(given[name]) for name in ("q", "k", "v")}}
