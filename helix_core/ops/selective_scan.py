"""Mamba's selective state-space scan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.activations import silu, softplus
from helix_core.ops.arrays import blank_padding, scan, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(
    u: Shape,
    delta: Shape,
    A: Shape,
    B: Shape,
    C: Shape,
    D: Shape | None,
    z: Shape | None,
    delta_bias: Shape | None,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
    *,
    delta_softplus: bool,
) -> tuple[Shape, ...]:
    return u, (u[0], u[2], A[1])


def _samples(rng: Any) -> Iterator[Sample]:
    for batch, length, channels, states in ((2, 9, 5, 3), (1, 1, 1, 1), (3, 20, 17, 16), (1, 70, 32, 16)):
        shape = (batch, length, channels)
        plain = {
            "u": rng.normal(size=shape),
            "delta": rng.normal(size=shape),
            "A": -rng.uniform(0.1, 4, size=(channels, states)),
            "B": rng.normal(size=(batch, length, states)),
            "C": rng.normal(size=(batch, length, states)),
        }
        soft = {"delta_softplus": True}
        yield Sample(plain | {"delta": rng.uniform(0, 1, size=shape)})
        full = plain | {
            "D": rng.normal(size=channels),
            "z": rng.normal(size=shape),
            "delta_bias": rng.normal(size=channels),
            "initial_state": rng.normal(size=(batch, channels, states)),
        }
        yield Sample(full, soft, "gate and state")
        ragged = {"reset": rng.random((batch, length)) < 0.2, "lengths": rng.integers(length + 1, size=batch)}
        yield Sample(full | ragged, soft, "reset and padding")


def _flops(u: Shape, delta: Shape, A: Shape, *rest: Shape | None, delta_softplus: bool) -> float:
    return 7.0 * math.prod(u) * A[1]


@define_op(shapes=_shapes, samples=_samples, flops=_flops, outputs=("y", "last_state"), no_grad=("reset", "lengths"))
def selective_scan(
    xp: Any,
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
) -> tuple[Array, Array]:
    """h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,  y_t = C_t h_t + D u_t,  gated by silu(z_t).

    u, delta, z (B, L, D); A (D, N); B, C (B, L, N); D, delta_bias (D,); initial_state (B, D, N)
    -> y (B, L, D), last_state (B, D, N). Δ = delta + delta_bias, through softplus if `delta_softplus`.
    reset (B, L) is True where a new document starts: the state before that step, initial_state too, is dropped.
    lengths (B,): steps at or beyond a row's length are padding; they leave the state as it is and their y is 0.

    Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> u, B, C = (rng.normal(size=(1, 9, size)) for size in (5, 3, 3))
    >>> delta, A = rng.random((1, 9, 5)), -rng.random((5, 3))
    >>> y, last_state = F.selective_scan(u, delta, A, B, C)
    >>> y.shape, last_state.shape
    ((1, 9, 5), (1, 5, 3))
    """
    length = u.shape[1]
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    u, delta, B, C = blank_padding(xp, valid, u, delta, B, C)
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = softplus(xp, delta)
    if reset is not None and valid is not None:
        reset = xp.logical_and(reset, valid)
    h = zeros(xp, (u.shape[0], u.shape[2], A.shape[1]), u) if initial_state is None else initial_state
    if length == 0:
        return xp.zeros_like(u), h

    def step(h: Array, at: tuple[Any, ...]) -> tuple[Array, Array]:
        u, dt, B, C, new, real = at
        if new is not None:
            h = xp.where(new[:, None, None], xp.zeros_like(h), h)
        following = xp.exp(dt[..., None] * A) * h + (dt * u)[..., None] * B[:, None, :]
        h = following if real is None else xp.where(real[:, None, None], following, h)
        return h, xp.sum(h * C[:, None, :], axis=-1)

    h, y = scan(xp, step, h, (u, delta, B, C, reset, valid))
    if D is not None:
        y = y + u * D
    if z is not None:
        y = y * silu(xp, *blank_padding(xp, valid, z))
    if valid is not None:
        y = xp.where(valid[..., None], y, xp.zeros_like(y))
    return y, h
