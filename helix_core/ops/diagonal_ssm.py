"""Time-invariant diagonal state-space model, as a recurrence and as a convolution filter.

Complex numbers travel as a last axis of size 2 (real, imaginary), since not every namespace has complex arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.arrays import arange, blank_padding, scan, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op


def _random_system(rng: Any, channels: int, states: int) -> dict[str, Any]:
    import numpy as np

    decay = -rng.uniform(0.01, 1, size=(channels, states))
    angle = rng.uniform(0, math.pi, size=(channels, states))
    return {"log_a": np.stack([decay, angle], axis=-1), "c": rng.normal(size=(channels, states, 2))}


def _scan_shapes(
    u: Shape,
    log_a: Shape,
    c: Shape,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
) -> tuple[Shape, ...]:
    return u, (u[0], u[2], log_a[1], 2)


def _scan_samples(rng: Any) -> Iterator[Sample]:
    for B, L, D, N in ((2, 9, 5, 3), (1, 1, 1, 1), (3, 30, 4, 16)):
        plain = {"u": rng.normal(size=(B, L, D))} | _random_system(rng, D, N)
        yield Sample(plain)
        ragged = {
            "initial_state": rng.normal(size=(B, D, N, 2)),
            "reset": rng.random((B, L)) < 0.2,
            "lengths": rng.integers(L + 1, size=B),
        }
        yield Sample(plain | ragged, label="state, reset and padding")


def _flops(u: Shape, log_a: Shape, *rest: Shape | None) -> float:
    return 11.0 * math.prod(u) * log_a[1]


@define_op(
    shapes=_scan_shapes,
    samples=_scan_samples,
    flops=_flops,
    outputs=("y", "last_state"),
    no_grad=("reset", "lengths"),
)
def diagonal_ssm(
    xp: Any,
    u: Array,
    log_a: Array,
    c: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """h_t = a h_{t-1} + u_t,  y_t = 2 Re Σ_n c_n h_{t,n}, with complex a = exp(log_a) and c.

    u (B, L, D); log_a, c (D, N, 2) -> y (B, L, D), last_state (B, D, N, 2).
    reset (B, L) is True where a new document starts; lengths (B,) marks right padding (y is 0 there).

    Source: Gu, Gupta, Goel and Ré, On the Parameterization and Initialization of Diagonal State Space Models, 2022.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> log_a = np.stack([np.full((3, 2), -0.5), np.ones((3, 2))], -1)  # real and imaginary parts
    >>> y, last_state = F.diagonal_ssm(rng.normal(size=(1, 9, 3)), log_a, rng.normal(size=(3, 2, 2)))
    >>> y.shape, last_state.shape
    ((1, 9, 3), (1, 3, 2, 2))
    """
    batch, length, channels = u.shape
    magnitude = xp.exp(log_a[..., 0])
    a_re, a_im = magnitude * xp.cos(log_a[..., 1]), magnitude * xp.sin(log_a[..., 1])
    c_re, c_im = c[..., 0], c[..., 1]
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    if reset is not None and valid is not None:
        reset = xp.logical_and(reset, valid)
    (u,) = blank_padding(xp, valid, u)
    if initial_state is None:
        initial_state = zeros(xp, (batch, channels, log_a.shape[1], 2), u)
    re, im = initial_state[..., 0], initial_state[..., 1]
    if length == 0:
        return xp.zeros_like(u), initial_state

    def step(h: tuple[Array, Array], at: tuple[Any, ...]) -> tuple[tuple[Array, Array], Array]:
        (re, im), (u, new, real) = h, at
        if new is not None:
            new = new[:, None, None]
            re, im = xp.where(new, xp.zeros_like(re), re), xp.where(new, xp.zeros_like(im), im)
        next_re = a_re * re - a_im * im + u[..., None]
        next_im = a_re * im + a_im * re
        if real is not None:
            real = real[:, None, None]
            next_re, next_im = xp.where(real, next_re, re), xp.where(real, next_im, im)
        return (next_re, next_im), 2 * xp.sum(c_re * next_re - c_im * next_im, axis=-1)

    (re, im), y = scan(xp, step, (re, im), (u, reset, valid))
    if valid is not None:
        y = xp.where(valid[..., None], y, xp.zeros_like(y))
    return y, xp.stack([re, im], axis=-1)


def _filter_shapes(log_a: Shape, c: Shape, *, length: int) -> tuple[Shape, ...]:
    return ((length, log_a[0]),)


def _filter_samples(rng: Any) -> Iterator[Sample]:
    for D, N, length in ((5, 3, 9), (1, 1, 1), (4, 16, 40)):
        yield Sample(_random_system(rng, D, N), {"length": length})


@define_op(shapes=_filter_shapes, samples=_filter_samples)
def diagonal_ssm_filter(xp: Any, log_a: Array, c: Array, *, length: int) -> Array:
    """The impulse response of `diagonal_ssm`: k_l = 2 Re Σ_n c_n a_n^l for l < length; (D, N, 2) -> (length, D).

    With l = i T + j and T about sqrt(length), c a^l = (c a^{iT}) (a^j): a product of two small matrices per
    channel, so the (D, N, length) table of powers is never built.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> log_a = np.stack([np.full((3, 2), -0.5), np.ones((3, 2))], -1)  # real and imaginary parts
    >>> F.diagonal_ssm_filter(log_a, rng.normal(size=(3, 2, 2)), length=9).shape
    (9, 3)
    """
    inner = math.isqrt(max(length - 1, 0)) + 1
    outer = -(-length // inner)

    def powers(exponents: Array) -> tuple[Array, Array]:
        phase = exponents[None, :, None] * log_a[:, None, :, 1]
        size = xp.exp(exponents[None, :, None] * log_a[:, None, :, 0])
        return size * xp.cos(phase), size * xp.sin(phase)

    coarse_re, coarse_im = powers(arange(xp, outer, log_a) * inner)  # (D, outer, N)
    fine_re, fine_im = powers(arange(xp, inner, log_a))  # (D, inner, N)
    c_re, c_im = c[:, None, :, 0], c[:, None, :, 1]
    left = xp.concat([c_re * coarse_re - c_im * coarse_im, -(c_re * coarse_im + c_im * coarse_re)], axis=-1)
    right = xp.concat([fine_re, fine_im], axis=-1)
    table = 2 * xp.matmul(left, xp.matrix_transpose(right))  # (D, outer, inner)
    return xp.matrix_transpose(xp.reshape(table, (log_a.shape[0], outer * inner)))[:length, :]
