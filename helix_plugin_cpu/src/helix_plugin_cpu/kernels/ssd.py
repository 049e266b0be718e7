"""Mamba-2's state-space duality on the CPU: matrix products within a core's cache, a state carried between chunks.

Memory is O(B L H P): neither L x L scores nor a state for each step are built. Arrays may be strided as long as their
last axis has unit stride.

Source: Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
Duality, 2024.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from helix_plugin_cpu.kernels import _linear_attention as attention
from helix_plugin_cpu.kernels._arguments import cast_back, check, empty, from_forward
from helix_plugin_cpu.kernels._linear_attention import Inputs, Plan
from helix_plugin_cpu.kernels._linear_attention_parts import SSD
from helix_plugin_torch.arguments import FLOATS, Shape

NAMES = ("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state", "reset", "lengths")


def _plan(x: Shape, B: Shape) -> Plan:
    return Plan(x[0], x[1], x[2], B[2], B[3], x[3], SSD)


def residuals(x: Shape, dt: Shape, A: Shape, B: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every span."""
    return (_plan(x, B).kept,)


def forward(
    *arrays: Tensor | None, dt_softplus: bool = False, dt_min: float = 0.0, dt_max: float = math.inf
) -> tuple[Tensor, Tensor]:
    """The 10 inputs of the op, in its order -> y (B, L, H, P), last_state (B, H, N, P).

    x, B, C and y are float32 or half precision, dt on its own too, the rest float32. Raises TypeError for other dtypes,
    ValueError for shapes that do not fit.
    """
    plan, given = _checked(arrays, dt_softplus, dt_min, dt_max)
    return attention.forward(plan, given, None)


def forward_train(
    *arrays: Tensor | None, dt_softplus: bool = False, dt_min: float = 0.0, dt_max: float = math.inf
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    plan, given = _checked(arrays, dt_softplus, dt_min, dt_max)
    kept = empty(plan.kept)
    return attention.forward(plan, given, kept), (kept,)


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
    plan, given = _checked(arrays, dt_softplus, dt_min, dt_max)
    state = (plan.batch, plan.heads, plan.keys, plan.values)
    check("ssd's backward", {"y": (grads[0], tuple(given.v.shape)), "last_state": (grads[1], state)}, dtypes=FLOATS)
    found = attention.backward(plan, given, from_forward("ssd", saved[0], plan.kept), grads[0], grads[1])
    result = (
        found.v,
        found.g,
        found.A,
        found.k,
        found.q,
        None if given.D is None else found.D,
        None if given.bias is None else found.bias,
        None if given.initial is None else found.initial,
        None,
        None,
    )
    return cast_back(result, arrays)


def _checked(arrays: tuple[Tensor | None, ...], soft: bool, low: float, high: float) -> tuple[Plan, Inputs]:
    given = (*arrays, *(None,) * (len(NAMES) - len(arrays)))
    x, dt, A, B, C, D, bias, initial, reset, lengths = given
    if x is None or x.ndim != 4:
        raise ValueError(f"ssd: x must be (B, L, H, P), not {None if x is None else tuple(x.shape)}")
    if B is None or B.ndim != 4 or not B.shape[2] or x.shape[2] % B.shape[2]:
        shape = None if B is None else tuple(B.shape)
        raise ValueError(f"ssd: B must be (B, L, G, N) with G a divisor of {x.shape[2]} heads, not {shape}")
    if dt is None or A is None or C is None:
        raise ValueError("ssd: dt, A and C are needed")
    batch, length, heads, width = x.shape
    groups, states = B.shape[2:]
    shapes: tuple[Shape, ...] = (
        (batch, length, heads, width), (batch, length, heads), (heads,), (batch, length, groups, states),
        (batch, length, groups, states), (heads,), (heads,), (batch, heads, states, width), (batch, length), (batch,),
    )  # fmt: skip
    check("ssd", dict(zip(NAMES, zip(given, shapes, strict=True), strict=True)), dtypes=FLOATS)
    return _plan(x.shape, B.shape), Inputs(
        q=C, k=B, v=x, g=dt, A=A, bias=bias, D=D, initial=initial, reset=reset, lengths=lengths,
        soft=soft, low=low, high=high,
    )  # fmt: skip
