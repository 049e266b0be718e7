"""The model in JAX: `lax.scan` whose steps are recomputed in the backward pass, all under `jit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peers import mamba
from side_by_side.row import NotHere


def work(shape: list[int], what: str) -> Callable[[], Any]:
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise NotHere("jax is not installed") from error

    def norm(x: Any, weight: Any) -> Any:
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + mamba.EPS) * weight

    def mixer(p: Any, x: Any) -> Any:
        E, N = p["A_log"].shape
        R = p["dt_proj.weight"].shape[1]
        uz = x @ p["in_proj.weight"].T
        u, z = uz[..., :E], uz[..., E:]
        K = p["conv1d.weight"].shape[1]
        padded = jnp.pad(u, ((0, 0), (K - 1, 0), (0, 0)))
        L = u.shape[1]
        u = jax.nn.silu(sum(padded[:, k : k + L] * p["conv1d.weight"][:, k] for k in range(K)) + p["conv1d.bias"])
        dbc = u @ p["x_proj.weight"].T
        delta = jax.nn.softplus(dbc[..., :R] @ p["dt_proj.weight"].T + p["dt_proj.bias"])
        A = -jnp.exp(p["A_log"])

        @jax.checkpoint
        def step(h: Any, now: Any) -> Any:
            u_t, delta_t, B_t, C_t = now
            h = jnp.exp(delta_t[:, :, None] * A) * h + (delta_t * u_t)[:, :, None] * B_t[:, None, :]
            return h, jnp.einsum("bdn,bn->bd", h, C_t)

        steps = (u, delta, dbc[..., R : R + N], dbc[..., R + N :])
        h = jnp.zeros((u.shape[0], E, N), u.dtype)
        _, y = jax.lax.scan(step, h, tuple(jnp.swapaxes(a, 0, 1) for a in steps))
        y = (jnp.swapaxes(y, 0, 1) + p["D"] * u) * jax.nn.silu(z)
        return y @ p["out_proj.weight"].T

    def logits(params: Any, tokens: Any) -> Any:
        x = params["embedding.weight"][tokens]
        for i in range(mamba.LAYERS):
            start = f"blocks.{i}.mixer."
            p = {name.removeprefix(start): a for name, a in params.items() if name.startswith(start)}
            x = x + mixer(p, norm(x, params[f"blocks.{i}.mixer_norm.weight"]))
        return norm(x, params["norm.weight"]), params["embedding.weight"]

    params = {name: jnp.asarray(a) for name, a in mamba.params().items()}
    tokens, targets = (jnp.asarray(a) for a in mamba.tokens(shape))
    if what == "prefill":

        @jax.jit
        def last(params: Any, tokens: Any) -> Any:
            x, head = logits(params, tokens)
            return x[:, -1] @ head.T

        return lambda: jax.block_until_ready(last(params, tokens))

    def loss(params: Any, tokens: Any, targets: Any) -> Any:
        x, head = logits(params, tokens)
        scores = jax.nn.log_softmax(x @ head.T)
        return -jnp.mean(jnp.take_along_axis(scores, targets[..., None], -1))

    step = jax.jit(jax.value_and_grad(loss))

    def train() -> Any:
        value, grads = jax.block_until_ready(step(params, tokens, targets))
        return [value, *(grads[name] for name in mamba.WATCHED)]

    return train
