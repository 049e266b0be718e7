"""Depthwise causal convolution over time with a fused SiLU on the CPU: forward and backward.

Rows of x may be strided as long as their last axis has unit stride; any other layout is copied first. Any
number of taps works; four, as in Mamba, are unrolled.

Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helix_plugin_cpu.kernels._arguments import (
    address,
    cast_back,
    check,
    empty,
    flags,
    row_ends,
    single,
    stored_like,
    strided,
)
from helix_plugin_cpu.kernels._blocks import blocks_per_job, by_row, total
from helix_plugin_cpu.kernels._conv_jobs import conv_backward_jobs, conv_forward_jobs, conv_scratch
from helix_plugin_cpu.kernels._simd import LANES
from helix_plugin_cpu.kernels._storage import kind
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import FLOATS, Shape, dense, rows

NAMES = ("x", "weight", "bias", "initial_state", "reset", "lengths")
WORK = 16
"""A step of a channel counts as so many updates of the scan."""


def residual_shapes(B: int, L: int, D: int, K: int) -> tuple[Shape, ...]:
    """None: the backward recomputes what is in front of the activation from its inputs."""
    return ()


def residuals(x: Shape, weight: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """`residual_shapes` from the shapes of the inputs."""
    return residual_shapes(x[0], x[1], x[2], weight[1])


def forward(*arrays: Tensor | None, activation: str = "none") -> tuple[Tensor, Tensor]:
    """(x, weight, bias, initial_state, reset, lengths) -> y (B, L, D), last_state (B, K-1, D).

    x (B, L, D); weight (D, K), its last column for the current step; bias (D,); initial_state (B, K-1, D),
    oldest first; reset (B, L) bool; lengths (B,). From bias on they are optional. `activation` is "none" or
    "silu". x is float32 or half precision, the rest float32. Raises TypeError for other dtypes, ValueError for
    shapes or activations that do not fit.
    """
    given = _checked(arrays, activation)
    batch, length, channels = given["x"].shape
    K = given["weight"].shape[1]
    blocks = -(-channels // LANES)
    group = blocks_per_job(batch, blocks)
    x = rows(given["x"])
    weight, bias, initial = (dense(single(given[name])) for name in ("weight", "bias", "initial_state"))
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    y, last = empty(x.shape, dtype=x.dtype), empty(batch, K - 1, channels)
    launch(
        conv_forward_jobs, batch * -(-blocks // group), WORK * given["x"].numel(), conv_scratch(K, group), kind(x),
        *strided(x), *map(address, (weight, bias, initial, reset, ends, y, last)),
        length, channels, K, group, int(activation == "silu"),
    )  # fmt: skip
    return y, last


def forward_train(*arrays: Tensor | None, activation: str = "none") -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`; the backward needs nothing more than the inputs."""
    return forward(*arrays, activation=activation), ()


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    activation: str = "none",
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays, activation)
    batch, length, channels = given["x"].shape
    K = given["weight"].shape[1]
    blocks = -(-channels // LANES)
    group = blocks_per_job(batch, blocks)
    check(
        "causal_conv1d's backward",
        {"y": (grads[0], (batch, length, channels)), "last_state": (grads[1], (batch, K - 1, channels))},
        dtypes=FLOATS,
    )
    x = rows(given["x"])
    weight, bias, initial = (dense(single(given[name])) for name in ("weight", "bias", "initial_state"))
    dy, dlast = rows(stored_like(grads[0], x)), dense(single(grads[1]))
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    dx, dinitial = empty(x.shape, dtype=x.dtype), empty(batch, K - 1, channels)
    dw = empty(batch, blocks, K + 1, LANES)
    launch(
        conv_backward_jobs, batch * -(-blocks // group), 3 * WORK * given["x"].numel(), conv_scratch(K, group),
        kind(x, dy), *strided(x), *strided(dy),
        *map(address, (weight, bias, initial, dlast, reset, ends, dx, dw, dinitial)),
        length, channels, K, group, int(activation == "silu"),
    )  # fmt: skip
    sums = by_row(total(dw), channels)
    grads = (
        dx,
        sums[:K].T.contiguous(),
        None if bias is None else sums[K],
        None if initial is None else dinitial,
        None,
        None,
    )
    return cast_back(grads, tuple(given.values()))


def _checked(arrays: tuple[Tensor | None, ...], activation: str) -> dict[str, Any]:
    given: dict[str, Any] = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    x, weight = given["x"], given["weight"]
    if x is None or x.ndim != 3:
        raise ValueError(f"causal_conv1d: x must be (B, L, D), not {None if x is None else tuple(x.shape)}")
    if weight is None or weight.ndim != 2 or weight.shape[1] < 1:
        found = None if weight is None else tuple(weight.shape)
        raise ValueError(f"causal_conv1d: weight must be (D, K) with K >= 1, not {found}")
    batch, length, channels = x.shape
    K = weight.shape[1]
    shapes = (x.shape, (channels, K), (channels,), (batch, K - 1, channels), (batch, length), (batch,))
    expected = {name: (given[name], tuple(shape)) for name, shape in zip(NAMES, shapes, strict=True)}
    check("causal_conv1d", expected, dtypes=FLOATS)
    if activation not in ("none", "silu"):
        raise ValueError(f"causal_conv1d: activation must be 'none' or 'silu', not {activation!r}")
    return given
