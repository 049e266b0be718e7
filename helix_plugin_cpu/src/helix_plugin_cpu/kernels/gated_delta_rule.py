"""The gated delta rule on the CPU, as a case of RWKV-7's recurrence.

With α = exp(log_decay): w = α, a = -α k, b = β k, and the key that takes in the value is β k too.

Source: Yang, Kautz and Hatamizadeh, Gated Delta Networks: Improving Mamba2 with Delta Rule, 2024.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import (
    cast_back,
    check,
    empty,
    flags,
    from_forward,
    row_ends,
    single,
    stored_as,
    stored_like,
)
from helix_plugin_cpu.kernels._dplr_delta import decays, kept_shape, run_backward, run_forward
from helix_plugin_torch.arguments import FLOATS, Shape, dense

NAMES = ("q", "k", "v", "log_decay", "beta", "initial_state", "reset", "lengths")
ACTIVATIONS = ("q", "k", "v")


def _heads(q: Shape, v: Shape) -> Shape:
    """The shape of keys once every head has its own."""
    return (q[0], q[1], v[2], q[3])


def residuals(q: Shape, k: Shape, v: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every tile."""
    return (kept_shape(_heads(q, v), v),)


def forward(*arrays: Tensor | None, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The eight inputs of the op, in its order -> y (B, L, H, V), last_state (B, H, K, V).

    q, k, v and y are float32 or half precision, the rest is computed with in float32. Raises TypeError for other
    dtypes, ValueError for shapes that do not fit.
    """
    return _forward(_checked(arrays), scale, None)


def forward_train(*arrays: Tensor | None, scale: float = 1.0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    kept = empty(kept_shape(_heads(given["q"].shape, given["v"].shape), given["v"].shape))
    return _forward(given, scale, kept), (kept,)


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    scale: float = 1.0,
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)
    batch, length, heads, values = given["v"].shape
    groups, keys = given["q"].shape[2:]
    dy = torch.zeros_like(given["v"]) if grads[0] is None else dense(stored_like(grads[0], given["v"]))
    dlast = dense(single(grads[1]))
    check(
        "gated_delta_rule's backward",
        {"y": (dy, (batch, length, heads, values)), "last_state": (dlast, (batch, heads, keys, values))},
        dtypes=FLOATS,
    )
    shape = kept_shape(_heads(given["q"].shape, given["v"].shape), given["v"].shape)
    kept = from_forward("gated_delta_rule", saved[0], shape)
    decay = decays(given["log_decay"], given["lengths"])
    dq, ddecay, dk, dv, _, dbeta, dinitial = run_backward(
        given["q"], decay, given["k"], given["v"], None, given["beta"], dy, dlast,
        flags(given["reset"]), row_ends(given["lengths"], batch, length), kept, scale,
    )  # fmt: skip
    if groups < heads:
        dq, dk = (grad.unflatten(2, (groups, heads // groups)).sum(3) for grad in (dq, dk))
    initial = None if given["initial_state"] is None else dinitial
    return cast_back((dq, dk, dv, ddecay.mul_(decay), dbeta, initial, None, None), arrays)


def _forward(given: dict[str, Any], scale: float, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, length = given["v"].shape[:2]
    return run_forward(
        given["q"], decays(given["log_decay"], given["lengths"]), given["k"], given["v"], None, given["beta"],
        given["initial_state"],
        flags(given["reset"]), row_ends(given["lengths"], batch, length), kept, scale,
    )  # fmt: skip


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given: dict[str, Any] = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    for name, shape in (("q", "(B, L, G, K)"), ("k", "(B, L, G, K)"), ("v", "(B, L, H, V)")):
        if given[name] is None or given[name].ndim != 4:
            found = None if given[name] is None else tuple(given[name].shape)
            raise ValueError(f"gated_delta_rule: {name} must be {shape}, not {found}")
    if given["log_decay"] is None or given["beta"] is None:
        raise ValueError("gated_delta_rule: log_decay and beta are needed")
    batch, length, groups, keys = given["q"].shape
    heads, values = given["v"].shape[2:]
    if groups == 0 or heads % groups:
        raise ValueError(f"gated_delta_rule: {heads} heads cannot share {groups} groups of queries and keys")
    key, head = (batch, length, groups, keys), (batch, length, heads)
    shapes = (key, key, (*head, values), head, head, (batch, heads, keys, values), (batch, length), (batch,))
    expected = {name: (given[name], shape) for name, shape in zip(NAMES, shapes, strict=True)}
    check("gated_delta_rule", expected, dtypes=FLOATS)
    short = stored_as(*(given[name] for name in ACTIVATIONS))
    for name in NAMES[:6]:
        dtype = short if name in ACTIVATIONS else torch.float32
        given[name] = None if given[name] is None else dense(given[name].detach().to(dtype))
    return given
