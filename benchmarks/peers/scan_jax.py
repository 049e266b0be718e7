"""The selective scan in JAX: `lax.scan` under `jit`, plain or with its steps recomputed in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peers import inputs
from side_by_side.row import NotHere

ORDER = ("u", "delta", "A", "B", "C", "D")


def op(shape: list[int], backward: bool, checkpoint: bool) -> Callable[[], Any]:
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise NotHere("jax is not installed") from error

    def scan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
        def step(h: Any, now: Any) -> Any:
            u_t, delta_t, B_t, C_t = now
            h = jnp.exp(delta_t[:, :, None] * A) * h + (delta_t * u_t)[:, :, None] * B_t[:, None, :]
            return h, jnp.einsum("bdn,bn->bd", h, C_t)

        body = jax.checkpoint(step) if checkpoint else step
        h = jnp.zeros((u.shape[0], u.shape[2], A.shape[1]), u.dtype)
        _, y = jax.lax.scan(body, h, tuple(jnp.swapaxes(a, 0, 1) for a in (u, delta, B, C)))
        return jnp.swapaxes(y, 0, 1) + D * u

    arrays = {name: jnp.asarray(a) for name, a in inputs.scan(*shape).items()}
    given = [arrays[name] for name in ORDER]
    if not backward:
        forward = jax.jit(scan)
        return lambda: jax.block_until_ready(forward(*given))

    @jax.jit
    def train(dy: Any, *given: Any) -> Any:
        y, pull = jax.vjp(scan, *given)
        return [y, *pull(dy)]

    return lambda: jax.block_until_ready(train(arrays["dy"], *given))
