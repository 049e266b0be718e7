"""Mamba-2's state-space duality."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops._linear_attention import linear_attention
from helix_core.ops.activations import softplus
from helix_core.ops.arrays import blank_padding, valid_steps
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(
    x: Shape,
    dt: Shape,
    A: Shape,
    B: Shape,
    C: Shape,
    D: Shape | None,
    dt_bias: Shape | None,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
    *,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
) -> tuple[Shape, ...]:
    return x, (x[0], x[2], B[3], x[3])


def _samples(rng: Any) -> Iterator[Sample]:
    import numpy as np

    for batch, length, heads, width, groups, states in (
        (2, 9, 4, 5, 2, 3),
        (1, 1, 1, 1, 1, 1),
        (2, 70, 2, 17, 1, 16),
        (1, 40, 6, 4, 3, 33),
    ):
        plain = {
            "x": rng.normal(size=(batch, length, heads, width)),
            "dt": rng.uniform(0.01, 1, size=(batch, length, heads)),
            "A": -rng.uniform(0.1, 4, size=heads),
            "B": rng.normal(size=(batch, length, groups, states)),
            "C": rng.normal(size=(batch, length, groups, states)),
        }
        yield Sample(plain)
        full = plain | {
            "dt": rng.normal(size=(batch, length, heads)) * 2,
            "D": rng.normal(size=heads),
            "dt_bias": rng.normal(size=heads),
            "initial_state": rng.normal(size=(batch, heads, states, width)),
        }
        yield Sample(full, {"dt_softplus": True}, "skip and state")
        ragged = {"reset": rng.random((batch, length)) < 0.2, "lengths": rng.integers(length + 1, size=batch)}
        limits = {"dt_softplus": True, "dt_min": 0.2, "dt_max": 1.5}
        # A finite difference across a limit is no derivative: no step size lies near one.
        step = softplus(np, full["dt"] + full["dt_bias"])
        near = (abs(step - limits["dt_min"]) < 1e-3) | (abs(step - limits["dt_max"]) < 1e-3)
        clear = {"dt": np.where(near, full["dt"] + 0.1, full["dt"])}
        yield Sample(full | clear | ragged, limits, "reset, padding and limits")


def _flops(x: Shape, dt: Shape, A: Shape, B: Shape, *rest: Shape | None, **attrs: Any) -> float:
    return 5.0 * math.prod(x) * B[3]


@define_op(shapes=_shapes, samples=_samples, flops=_flops, outputs=("y", "last_state"), no_grad=("reset", "lengths"))
def ssd(
    xp: Any,
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    dt_bias: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    dt_softplus: bool = False,
    dt_min: float = 0.0,
    dt_max: float = math.inf,
) -> tuple[Array, Array]:
    """S_t = exp(Δ_t A) S_{t-1} + Δ_t B_t x_tᵀ,  y_t = S_tᵀ C_t + D x_t, for every head.

    x (B, L, H, P), dt (B, L, H), A, D, dt_bias (H,), B, C (B, L, G, N), G a divisor of H: heads h G/H .. share them;
    initial_state (B, H, N, P) -> y (B, L, H, P), last_state (B, H, N, P).
    Δ = dt + dt_bias, through softplus if `dt_softplus`, then held between dt_min and dt_max.
    reset (B, L) is True where a new document starts: the state before that step, initial_state too, is dropped.
    lengths (B,): steps at or beyond a row's length are padding; they leave the state as it is and their y is 0.

    Source: Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
    Space Duality, 2024.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> x, dt, A = rng.normal(size=(1, 9, 4, 5)), rng.random((1, 9, 4)), -rng.random(4)
    >>> B, C = (rng.normal(size=(1, 9, 2, 3)) for _ in "BC")
    >>> y, last_state = F.ssd(x, dt, A, B, C)
    >>> y.shape, last_state.shape
    ((1, 9, 4, 5), (1, 4, 3, 5))
    """
    batch, length, heads, _ = x.shape
    groups, states = B.shape[2:]
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    x, dt, B, C = blank_padding(xp, valid, x, dt, B, C)
    if dt_bias is not None:
        dt = dt + dt_bias
    if dt_softplus:
        dt = softplus(xp, dt)
    dt = xp.clip(dt, dt_min, dt_max)[..., None]

    def to_heads(a: Array) -> Array:
        shared = xp.broadcast_to(a[:, :, :, None, :], (batch, length, groups, heads // groups, states))
        return xp.reshape(shared, (batch, length, heads, states))

    y, last = linear_attention(xp, to_heads(C), to_heads(B), dt * x, dt * A[:, None], initial_state, reset, lengths)
    if D is not None:
        y = y + D[:, None] * x  # padding is 0 in both
    return y, last
