"""h_t = a_t h_{t-1} + x_t over the first axis: one step after the other, or in parallel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = Any


@jax.custom_jvp
def in_steps(start: Array, a: Array, x: Array) -> Array:
    """start (...), a, x (T, ...) -> every h (T, ...): what processors do best.

    Its derivative is a recurrence with the same `a`. Told so, JAX keeps and stacks one array of a backward pass, where
    it would keep three if it took every step's derivative.
    """
    return _steps(start, a, x)


@in_steps.defjvp
def _derivative(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    start, a, x = primals
    dstart, da, dx = tangents
    h = in_steps(start, a, x)
    before = jnp.concatenate([start[None], h[:-1]])
    return h, _steps(dstart, a, da * before + dx)


def _steps(start: Array, a: Array, x: Array) -> Array:
    def step(h: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        h = at[0] * h + at[1]
        return h, h

    return lax.scan(step, start, (a, x))[1]


def in_parallel(start: Array, a: Array, x: Array) -> Array:
    """The same in log T steps, of all of the arrays each: what accelerators do best.

    Source: Blelloch, Prefix Sums and Their Applications, 1990 (`jax.lax.associative_scan`).
    """

    def join(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return left[0] * right[0], left[1] * right[0] + right[1]

    decay, h = lax.associative_scan(join, (a, x))
    return h + decay * start
