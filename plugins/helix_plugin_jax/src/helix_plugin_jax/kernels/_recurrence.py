"""h_t = a_t h_{t-1} + x_t over the first axis: one step after the other, or in parallel.

Where `fresh`, nothing is taken from the steps before: selected, not multiplied with 0, which NaN would pass.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = Any


@jax.custom_jvp
def in_steps(start: Array, a: Array, x: Array, fresh: Array | None = None) -> Array:
    """start (...), a, x (T, ...), fresh like them or None -> every h (T, ...): what processors do best.

    Its derivative is a recurrence with the same `a`. Told so, JAX keeps and stacks one array of a backward pass, where
    it would keep three if it took every step's derivative.
    """
    return _steps(start, a, x, fresh)


@in_steps.defjvp
def _derivative(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    start, a, x, fresh = primals
    dstart, da, dx, _ = tangents
    h = in_steps(start, a, x, fresh)
    before = jnp.concatenate([start[None], h[:-1]])
    if fresh is not None:
        before = jnp.where(fresh, 0, before)
    return h, _steps(dstart, a, da * before + dx, fresh)


def _steps(start: Array, a: Array, x: Array, fresh: Array | None) -> Array:
    def step(h: Array, at: tuple[Array, Array, Array | None]) -> tuple[Array, Array]:
        decay, added, new = at
        h = decay * (h if new is None else jnp.where(new, 0, h)) + added
        return h, h

    return lax.scan(step, start, (a, x, fresh))[1]


def in_parallel(start: Array, a: Array, x: Array, fresh: Array | None = None) -> Array:
    """The same in log T steps, of all of the arrays each: what accelerators do best.

    Source: Blelloch, Prefix Sums and Their Applications, 1990 (`jax.lax.associative_scan`).
    """

    if fresh is None:

        def join(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
            return left[0] * right[0], left[1] * right[0] + right[1]

        decay, h = lax.associative_scan(join, (a, x))
        return h + decay * start

    def join_documents(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
        new = right[2]
        decay, h = jnp.where(new, 0, left[0]) * right[0], jnp.where(new, 0, left[1]) * right[0] + right[1]
        return decay, h, jnp.logical_or(left[2], new)

    decay, h, new = lax.associative_scan(join_documents, (a, x, jnp.broadcast_to(fresh, x.shape)))
    return h + jnp.where(new, 0, decay * start)
