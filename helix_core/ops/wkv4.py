"""RWKV-4's attention: a running average of values, weighted by exponentials of keys that fade."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.arrays import blank_padding, scan, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op

EMPTY = -1e38
"""The logarithm of no weight at all; finite, so that differences are numbers."""


def _shapes(
    k: Shape,
    v: Shape,
    log_decay: Shape,
    bonus: Shape,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
) -> tuple[Shape, ...]:
    return v, (v[0], 2, v[2])


def _samples(rng: Any) -> Iterator[Sample]:
    import numpy as np

    for B, L, D in ((2, 9, 5), (1, 1, 1), (3, 40, 17)):
        plain = {
            "k": 2 * rng.normal(size=(B, L, D)),
            "v": rng.normal(size=(B, L, D)),
            "log_decay": -np.exp(rng.uniform(-5, 2, size=D)),
            "bonus": rng.normal(size=D),
        }
        yield Sample(plain)
        ragged = {
            "initial_state": rng.normal(size=(B, 2, D)),
            "reset": rng.random((B, L)) < 0.2,
            "lengths": rng.integers(L + 1, size=B),
        }
        yield Sample(plain | ragged, label="state, reset and padding")


def _flops(k: Shape, *rest: Any) -> float:
    """Additions, multiplications and exponentials of a step of a channel; a sigmoid's is within its tanh."""
    return 19.0 * math.prod(k)


@define_op(shapes=_shapes, samples=_samples, flops=_flops, outputs=("y", "last_state"), no_grad=("reset", "lengths"))
def wkv4(
    xp: Any,
    k: Array,
    v: Array,
    log_decay: Array,
    bonus: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """y_t = (Σ_{s<t} e^((t-1-s) w + k_s) v_s + e^(u + k_t) v_t) / (the same without v), for every channel.

    k, v (B, L, D), log_decay w <= 0 and bonus u (D,) -> y (B, L, D), last_state (B, 2, D). A state holds the average m
    of the values before and the logarithm z of their weight, which no key overflows; without any, m = 0, z = EMPTY:

        y_t = m + sigmoid(k_t + u - z) (v_t - m)
        m   = m + sigmoid(k_t - (z + w)) (v_t - m),  z = log(e^(z + w) + e^(k_t))

    reset (B, L) is True where a new document starts; lengths (B,) marks right padding (y is 0 there).

    Source: Peng et al., RWKV: Reinventing RNNs for the Transformer Era, 2023.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> k, v = rng.normal(size=(1, 9, 3)), rng.normal(size=(1, 9, 3))
    >>> y, last_state = F.wkv4(k, v, -rng.random(3), rng.random(3))
    >>> y.shape, last_state.shape
    ((1, 9, 3), (1, 2, 3))
    """
    length = k.shape[1]
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    if reset is not None and valid is not None:
        reset = xp.logical_and(reset, valid)
    k, v = blank_padding(xp, valid, k, v)
    if initial_state is None:
        m = zeros(xp, (k.shape[0], k.shape[2]), k)
        z = m + EMPTY
    else:
        m, z = initial_state[:, 0, :], initial_state[:, 1, :]
    if length == 0:
        return xp.zeros_like(v), xp.stack([m, z], axis=1)

    def step(state: tuple[Array, Array], at: tuple[Any, ...]) -> tuple[tuple[Array, Array], Array]:
        (m, z), (key, value, new, real) = state, at
        if new is not None:
            new = new[:, None]
            m, z = xp.where(new, xp.zeros_like(m), m), xp.where(new, xp.zeros_like(z) + EMPTY, z)
        faded = z + log_decay
        y = m + _sigmoid(xp, key + bonus - z) * (value - m)
        next_m = m + _sigmoid(xp, key - faded) * (value - m)
        next_z = xp.maximum(key, faded) + xp.log1p(xp.exp(-xp.abs(key - faded)))
        if real is not None:
            next_m, next_z = xp.where(real[:, None], next_m, m), xp.where(real[:, None], next_z, z)
        return (next_m, next_z), y

    (m, z), y = scan(xp, step, (m, z), (k, v, reset, valid))
    if valid is not None:
        y = xp.where(valid[..., None], y, xp.zeros_like(y))
    return y, xp.stack([m, z], axis=1)


def _sigmoid(xp: Any, x: Array) -> Array:
    return 0.5 * xp.tanh(0.5 * x) + 0.5
