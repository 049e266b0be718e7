"""First-order linear recurrence with input-dependent decay."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.arrays import blank_padding, scan, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(
    a: Shape, x: Shape, initial_state: Shape | None, reset: Shape | None, lengths: Shape | None
) -> tuple[Shape, ...]:
    return x, (x[0], x[2])


def _samples(rng: Any) -> Iterator[Sample]:
    for B, L, D in ((2, 9, 5), (1, 1, 1), (3, 40, 17)):
        plain = {"a": rng.uniform(0, 1, size=(B, L, D)), "x": rng.normal(size=(B, L, D))}
        yield Sample(plain)
        ragged = {
            "initial_state": rng.normal(size=(B, D)),
            "reset": rng.random((B, L)) < 0.2,
            "lengths": rng.integers(L + 1, size=B),
        }
        yield Sample(plain | ragged, label="state, reset and padding")


def _flops(a: Shape, x: Shape, *rest: Shape | None) -> float:
    return 2.0 * math.prod(x)


@define_op(shapes=_shapes, samples=_samples, flops=_flops, outputs=("y", "last_state"), no_grad=("reset", "lengths"))
def linear_scan(
    xp: Any,
    a: Array,
    x: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """h_t = a_t h_{t-1} + x_t for every channel: a, x (B, L, D) -> y = h (B, L, D), last_state (B, D).

    reset (B, L) is True where a new document starts; lengths (B,) marks right padding (y is 0 there).

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.linear_scan(np.full((1, 3, 1), 0.5), np.ones((1, 3, 1)))[0].ravel().tolist()
    [1.0, 1.5, 1.75]
    """
    length = x.shape[1]
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    if reset is not None and valid is not None:
        reset = xp.logical_and(reset, valid)
    a, x = blank_padding(xp, valid, a, x)
    h = zeros(xp, (x.shape[0], x.shape[2]), x) if initial_state is None else initial_state
    if length == 0:
        return xp.zeros_like(x), h

    def step(h: Array, at: tuple[Any, ...]) -> tuple[Array, Array]:
        a, x, new, real = at
        if new is not None:
            h = xp.where(new[:, None], xp.zeros_like(h), h)
        following = a * h + x
        h = following if real is None else xp.where(real[:, None], following, h)
        return h, h

    h, y = scan(xp, step, h, (a, x, reset, valid))
    if valid is not None:
        y = xp.where(valid[..., None], y, xp.zeros_like(y))
    return y, h
