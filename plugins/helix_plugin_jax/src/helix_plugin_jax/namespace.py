"""jax.numpy as the array namespace of references, with XLA's loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = Any
SEGMENT = 64
"""Steps whose intermediate values are computed again in the backward pass, instead of being kept."""


class Namespace:
    """`jax.numpy`; without `jax_enable_x64`, its `int64` is `int32`, the widest integer that JAX then has."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @property
    def int64(self) -> Any:
        return jnp.int64 if jax.config.read("jax_enable_x64") else jnp.int32

    def helix_scan(
        self, step: Callable[[Any, tuple[Any, ...]], tuple[Any, Array]], carry: Any, xs: tuple[Array | None, ...]
    ) -> tuple[Any, Array]:
        """`carry, y = step(carry, arrays of a step)` over axis 1, compiled once whatever the length.

        Long loops go in segments: the backward pass keeps the carries between them and computes the rest again.
        Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, along time.
        """
        steps = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), xs)
        length = jax.tree.leaves(steps)[0].shape[0]
        segments = length // SEGMENT
        if segments < 2:
            carry, ys = lax.scan(step, carry, steps)
            return carry, jnp.moveaxis(ys, 0, 1)

        @jax.checkpoint
        def segment(carry: Any, part: Any) -> tuple[Any, Array]:
            return lax.scan(step, carry, part)

        whole = segments * SEGMENT
        cut = jax.tree.map(lambda a: a[:whole].reshape(segments, SEGMENT, *a.shape[1:]), steps)
        carry, ys = lax.scan(segment, carry, cut)
        ys = ys.reshape(whole, *ys.shape[2:])
        if whole < length:
            carry, rest = lax.scan(step, carry, jax.tree.map(lambda a: a[whole:], steps))
            ys = jnp.concatenate([ys, rest])
        return carry, jnp.moveaxis(ys, 0, 1)

    def helix_cond(self, holds: Array, then: Callable[[], Array], otherwise: Callable[[], Array]) -> Array:
        """`then()` or `otherwise()`, both compiled.

        What `then`, the rare one, needs backwards is computed again there, since room for it would be taken for either.
        """
        found: Array = lax.cond(holds, jax.checkpoint(then), otherwise)
        return found


xp = Namespace()
