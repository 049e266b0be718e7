"""RWKV-7's recurrence on the CPU: forward, and backward by recomputation from states kept every few steps."""

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

NAMES = ("r", "log_decay", "k", "v", "a", "b", "initial_state", "reset", "lengths")
ACTIVATIONS = ("r", "k", "v", "a", "b")


def residuals(r: Shape, log_decay: Shape, k: Shape, v: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every tile."""
    return (kept_shape(r, v),)


def forward(*arrays: Tensor | None) -> tuple[Tensor, Tensor]:
    """The nine inputs of the op, in its order -> y (B, L, H, V), last_state (B, H, K, V).

    r, k, v, a, b and y are float32 or half precision, the rest float32. Raises TypeError for other
    dtypes, ValueError for shapes that do not fit.
    """
    return _forward(_checked(arrays), None)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    kept = empty(kept_shape(given["r"].shape, given["v"].shape))
    return _forward(given, kept), (kept,)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)
    batch, length, heads, keys = given["r"].shape
    values = given["v"].shape[3]
    dy = torch.zeros_like(given["v"]) if grads[0] is None else dense(stored_like(grads[0], given["v"]))
    dlast = dense(single(grads[1]))
    check(
        "rwkv7's backward",
        {"y": (dy, (batch, length, heads, values)), "last_state": (dlast, (batch, heads, keys, values))},
        dtypes=FLOATS,
    )
    kept = from_forward("rwkv7", saved[0], kept_shape(given["r"].shape, given["v"].shape))
    decay = decays(given["log_decay"], given["lengths"])
    dr, dw, dk, dv, da, db, dinitial = run_backward(
        given["r"], decay, given["k"], given["v"], given["a"], given["b"], dy, dlast,
        flags(given["reset"]), row_ends(given["lengths"], batch, length), kept,
    )  # fmt: skip
    found = (dr, dw.mul_(decay), dk, dv, da, db, None if given["initial_state"] is None else dinitial, None, None)
    return cast_back(found, arrays)


def _forward(given: dict[str, Any], kept: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, length = given["r"].shape[:2]
    return run_forward(
        given["r"], decays(given["log_decay"], given["lengths"]), given["k"], given["v"], given["a"], given["b"],
        given["initial_state"], flags(given["reset"]), row_ends(given["lengths"], batch, length), kept,
    )  # fmt: skip


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given: dict[str, Any] = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    for name in NAMES[:6]:
        if given[name] is None or given[name].ndim != 4:
            found = None if given[name] is None else tuple(given[name].shape)
            raise ValueError(f"rwkv7: {name} must be (B, L, H, {'V' if name == 'v' else 'K'}), not {found}")
    batch, length, heads, keys = given["r"].shape
    values = given["v"].shape[3]
    key, value = (batch, length, heads, keys), (batch, length, heads, values)
    shapes = (key, key, key, value, key, key, (batch, heads, keys, values), (batch, length), (batch,))
    expected = {name: (given[name], shape) for name, shape in zip(NAMES, shapes, strict=True)}
    check("rwkv7", expected, dtypes=FLOATS)
    short = stored_as(*(given[name] for name in ACTIVATIONS))
    for name in NAMES[:7]:
        dtype = short if name in ACTIVATIONS else torch.float32
        given[name] = None if given[name] is None else dense(given[name].detach().to(dtype))
    return given
