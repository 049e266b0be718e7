"""Mamba-2's state-space duality on the kernels of linear attention: C asks, B is the key, Δ x the value, Δ A the gate.

B sequences (and the op's B), L positions, H heads, P channels of a head, N states per channel, G groups of B and C.

Source: Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
Duality, 2024.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from helix_plugin_cuda.kernels import _linear_attention_run as attention
from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, named
from helix_plugin_cuda.kernels._fused_recurrent import MOST_STEPS, Steps, fused_recurrent
from helix_plugin_cuda.kernels._linear_attention_run import Problem, check_width, effective, gate_slope
from helix_plugin_torch.arguments import Shape, check, dense, rows

NAMES = ("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state", "reset", "lengths")


def residuals(x: Shape, dt: Shape, A: Shape, B: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every chunk, and the last one."""
    return attention.residual_shapes(x[0], x[1], x[2], B[3], x[3])


def forward(
    *arrays: Tensor | None, dt_softplus: bool = False, dt_min: float = 0.0, dt_max: float = math.inf
) -> tuple[Tensor, ...]:
    """The ten inputs of the op, in its order -> y (B, L, H, P), last_state (B, H, N, P) float32.

    Raises TypeError for float64, ValueError for shapes that do not fit, UsageError for heads wider than 256.
    """
    given = _checked(arrays)
    if 0 < given["x"].shape[1] <= MOST_STEPS:
        return fused_recurrent(
            Steps(
                q=given["C"], k=given["B"], v=given["x"], rate=given["dt"], A=given["A"], bias=given["dt_bias"],
                skip=given["D"], initial=given["initial_state"], reset=given["reset"], lengths=given["lengths"],
                softplus=dt_softplus, low=dt_min, high=dt_max, dtype=_dtype(given),
            )
        )  # fmt: skip
    return _run(given, _problem(given, _step(given, dt_softplus).clamp(dt_min, dt_max)), None)


def forward_train(
    *arrays: Tensor | None, dt_softplus: bool = False, dt_min: float = 0.0, dt_max: float = math.inf
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    p = _problem(given, _step(given, dt_softplus).clamp(dt_min, dt_max))
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
    dt_softplus: bool = False,
    dt_min: float = 0.0,
    dt_max: float = math.inf,
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _without_padding(_checked(arrays))
    free = _step(given, dt_softplus)
    step = free.clamp(dt_min, dt_max)
    p = _problem(given, step)
    x, A, D, bias, initial = (given[name] for name in ("x", "A", "D", "dt_bias", "initial_state"))
    dy = torch.zeros(x.shape, dtype=torch.float32, device=x.device) if grads[0] is None else dense(grads[0])
    kept, last = saved
    found = attention.backward(p, kept, last, dy, dense(grads[1]))
    gates = gate_slope(found.gates, step[..., None] * A.float()[:, None], given["reset"], p.ends)[..., 0]
    wide_x = x.float()
    dx, dD = found.v * step[..., None], None
    if D is not None:
        slope = dy.float()
        if (padding := _padding(given)) is not None:
            slope = slope.masked_fill(padding[:, :, None, None], 0.0)
        dx = dx + D.float()[:, None] * slope
        dD = (slope * wide_x).sum((0, 1, 3)).to(D.dtype)
    dstep = (found.v * wide_x).sum(-1) + gates * A.float()
    dstep = torch.where((free < dt_min) | (free > dt_max), 0.0, dstep)
    if dt_softplus:
        dstep = dstep * torch.sigmoid(_raw(given))
    return (
        dx.to(x.dtype),
        dstep.to(given["dt"].dtype),
        (gates * step).sum((0, 1)).to(A.dtype),
        _to_groups(found.k, given["B"]),
        _to_groups(found.q, given["C"]),
        dD,
        None if bias is None else dstep.sum((0, 1)).to(bias.dtype),
        None if initial is None else found.initial.to(initial.dtype),
        None,
        None,
    )


def _padding(given: dict[str, Any]) -> Tensor | None:
    """Where steps (B, L) are padding; None if there is none."""
    x = given["x"]
    row_ends = ends(given["lengths"], x.shape[1])
    if row_ends is None:
        return None
    steps = torch.arange(x.shape[1], dtype=torch.int64, device=x.device)
    return steps >= row_ends[:, None]


def _without_padding(given: dict[str, Any]) -> dict[str, Any]:
    """Zeros in the padding of what is multiplied outside of kernels, which do not read it: 0 times NaN is NaN."""
    padding = _padding(given)
    if padding is None:
        return given
    x, dt = given["x"].detach(), given["dt"].detach()
    blank = {"x": x.masked_fill(padding[:, :, None, None], 0.0), "dt": dt.masked_fill(padding[:, :, None], 0.0)}
    return {**given, **blank}


def _raw(given: dict[str, Any]) -> Tensor:
    """Δ before its softplus, float32 (B, L, H)."""
    dt: Tensor = given["dt"].detach().float()
    return dt if given["dt_bias"] is None else dt + given["dt_bias"].detach().float()


def _step(given: dict[str, Any], soft: bool) -> Tensor:
    """Δ before it is held between its limits, float32 (B, L, H)."""
    raw = _raw(given)
    step: Tensor = softplus(raw) if soft else raw
    return step


def _to_groups(grad: Tensor, array: Tensor) -> Tensor:
    """(B, L, H, N) -> (B, L, G, N): heads that share an array add up."""
    B, L, G, N = array.shape
    return grad.view(B, L, G, -1, N).sum(3).to(array.dtype)


def _run(given: dict[str, Any], p: Problem, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    B, L, H, N, P = p.sizes
    y = torch.empty(B, L, H, P, dtype=_dtype(given), device=p.v.device)
    last = torch.empty(B, H, N, P, dtype=torch.float32, device=p.v.device)
    attention.forward(p, y, last, kept)
    return y, last


def _dtype(given: dict[str, Any]) -> torch.dtype:
    return activation_dtype(*(given[name] for name in NAMES[:8]))


def _problem(given: dict[str, Any], step: Tensor) -> Problem:
    x = given["x"]
    row_ends = ends(given["lengths"], x.shape[1])
    gates = (step * given["A"].detach().float())[..., None]
    return Problem(
        q=given["C"], k=given["B"], v=x, gates=effective(gates, given["reset"], row_ends), factor=step.contiguous(),
        initial=dense(given["initial_state"]), ends=row_ends, skip=dense(given["D"]), scale=1.0,
    )  # fmt: skip


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given = named("ssd", NAMES, arrays, 5)
    x, keys = given["x"], given["B"]
    if x.ndim != 4:
        raise ValueError(f"ssd: x must be (B, L, H, P), not {tuple(x.shape)}")
    if keys.ndim != 4 or not keys.shape[2] or x.shape[2] % keys.shape[2]:
        raise ValueError(f"ssd: B must be (B, L, G, N) with G a divisor of {x.shape[2]} heads, not {tuple(keys.shape)}")
    (B, L, H, P), (G, N) = x.shape, keys.shape[2:]
    check_width("ssd", N, P)
    shapes = ((B, L, H, P), (B, L, H), (H,), (B, L, G, N), (B, L, G, N), (H,), (H,), (B, H, N, P), (B, L), (B,))
    check("ssd", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    return {**given, **{name: rows(given[name]) for name in ("x", "B", "C")}}
