"""Ops that are better said in another way than their reference: JAX differentiates and compiles them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from helix_core.ops import OPS
from helix_core.ops.linear_cross_entropy import rows_at_once
from helix_plugin_jax.namespace import xp

Array = Any
Mix = Callable[[Array, Array, tuple[Any, ...]], tuple[Array, Array]]
"""State (B, D, N), A, and (u, delta, B, C, reset, real) with None for what is absent -> y (B, L, D), last state."""
PART = 256
"""Steps of a parallel scan: its states (B, PART, D, N) are all there at once."""


def linear_scan(
    a: Array,
    x: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """The op `linear_scan`: in log L parallel steps on accelerators, one after the other on processors."""
    if jax.default_backend() == "cpu":
        found: tuple[Array, Array] = OPS["linear_scan"].reference(xp, a, x, initial_state, reset, lengths)
        return found
    return linear_scan_in_parallel(a, x, initial_state, reset, lengths)


def linear_scan_in_parallel(
    a: Array, x: Array, initial_state: Array | None, reset: Array | None, lengths: Array | None
) -> tuple[Array, Array]:
    """Source: Blelloch, Prefix Sums and Their Applications, 1990 (`jax.lax.associative_scan`)."""
    if x.shape[1] == 0:
        return x, jnp.zeros_like(x[:, 0]) if initial_state is None else initial_state
    start = jnp.zeros_like(x[:, 0]) if initial_state is None else initial_state
    real = _real(x, lengths)
    h, last = _parallel(start, _decays(a, reset, real), jnp.where(real[..., None], x, 0))
    return jnp.where(real[..., None], h, 0), last


def selective_scan(
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
    mix: Mix | None = None,
) -> tuple[Array, Array]:
    """The op `selective_scan`: parts of a parallel scan on accelerators, step by step on processors, or by `mix`."""
    mix = mix or (_in_steps if jax.default_backend() == "cpu" else _in_parts)
    h = jnp.zeros((u.shape[0], u.shape[2], A.shape[1]), u.dtype) if initial_state is None else initial_state
    if u.shape[1] == 0:
        return jnp.zeros_like(u), h
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = jax.nn.softplus(delta)
    real = None if lengths is None else _real(u, lengths)
    if reset is not None and real is not None:
        reset = reset & real
    y, h = mix(h, A, (u, delta, B, C, reset, real))
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * jax.nn.silu(z)
    return y if real is None else jnp.where(real[..., None], y, 0), h


def _in_steps(h: Array, A: Array, arrays: tuple[Any, ...]) -> tuple[Array, Array]:
    """One step after the other. The product with C is a dot product: XLA's sums over the last axis are slow on CPUs."""

    def step(h: Array, at: Any) -> tuple[Array, Array]:
        u, delta, B, C, reset, real = at
        if reset is not None:
            h = jnp.where(reset[:, None, None], 0, h)
        following = jnp.exp(delta[:, :, None] * A) * h + (delta * u)[:, :, None] * B[:, None, :]
        h = following if real is None else jnp.where(real[:, None, None], following, h)
        return h, jnp.einsum("bdn,bn->bd", h, C)

    h, y = xp.helix_scan(step, h, arrays)
    return y, h


def _in_parts(h: Array, A: Array, arrays: tuple[Any, ...]) -> tuple[Array, Array]:
    """Parts of PART steps, each a parallel scan that the backward pass computes again."""
    u = arrays[0]
    batch, length, channels = u.shape
    if arrays[-1] is None:
        arrays = (*arrays[:-1], _real(u, None))

    @jax.checkpoint
    def part(h: Array, at: Any) -> tuple[Array, Array]:
        u, delta, B, C, reset, real = at
        decay = _decays(jnp.exp(delta[..., None] * A), reset, real)
        added = jnp.where(real[..., None, None], (delta * u)[..., None] * B[:, :, None, :], 0)
        states, last = _parallel(h, decay, added)
        return last, jnp.sum(states * C[:, :, None, :], axis=-1)

    whole = length - length % PART
    ys = []
    if whole:
        cut = jax.tree.map(
            lambda a: jnp.moveaxis(a[:, :whole].reshape(batch, -1, PART, *a.shape[2:]), 1, 0),
            arrays,
        )
        h, y = lax.scan(part, h, cut)
        ys.append(jnp.moveaxis(y, 0, 1).reshape(batch, whole, channels))
    if whole < length:
        h, y = part(h, jax.tree.map(lambda a: a[:, whole:], arrays))
        ys.append(y)
    return jnp.concatenate(ys, axis=1), h


selective_scan_in_parallel = functools.partial(selective_scan, mix=_in_parts)


def _real(x: Array, lengths: Array | None) -> Array:
    """Boolean (B, L): True for steps that are no padding."""
    batch, length = x.shape[:2]
    if lengths is None:
        return jnp.ones((batch, length), bool)
    return jnp.arange(length)[None, :] < lengths[:, None]


def _decays(a: Array, reset: Array | None, real: Array) -> Array:
    """Decays (B, L, ...): 0 where a document starts, 1 where there is padding."""
    spread = (..., *(None,) * (a.ndim - 2))
    if reset is not None:
        a = jnp.where(reset[spread], 0, a)
    return jnp.where(real[spread], a, 1)


def _parallel(start: Array, a: Array, x: Array) -> tuple[Array, Array]:
    """h_t = a_t h_{t-1} + x_t over axis 1: all of them, and the last."""

    def join(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return left[0] * right[0], left[1] * right[0] + right[1]

    decay, h = lax.associative_scan(join, (a, x), axis=1)
    h = h + decay * start[:, None]
    return h, h[:, -1]


def linear_cross_entropy(x: Array, weight: Array, targets: Array) -> Array:
    """The op `linear_cross_entropy`; many logits go in chunks of rows, which the backward pass computes again."""
    reference = functools.partial(OPS["linear_cross_entropy"].reference, xp)
    (classes, width), rows = weight.shape, targets.size
    size = rows_at_once(rows, width, classes)
    if size >= rows:
        nats: Array = reference(x, weight, targets)
        return nats
    of_row = jax.checkpoint(lambda at: reference(at[0], weight, at[1]))
    return lax.map(of_row, (x.reshape(rows, width), targets.reshape(rows)), batch_size=size).reshape(targets.shape)


@jax.jit
def _adamw(p: Array, g: Array, m: Array, v: Array, numbers: dict[str, Any]) -> tuple[Array, Array, Array]:
    n = numbers
    m = n["beta1"] * m + (1 - n["beta1"]) * g
    v = n["beta2"] * v + (1 - n["beta2"]) * (g * g)
    return p * n["keep"] - n["rate"] * m / (jnp.sqrt(v) / n["root"] + n["eps"]), m, v


def adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    step: int = 1,
) -> tuple[Array, Array, Array]:
    """The op `adamw`; what changes from step to step is an input, not a constant of the program."""
    numbers = {
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps,
        "keep": 1 - lr * weight_decay,
        "rate": lr / (1 - beta1**step),
        "root": math.sqrt(1 - beta2**step),
    }
    updated: tuple[Array, Array, Array] = _adamw(p, g, m, v, numbers)
    return updated


SELF_COMPILED: dict[str, Callable[..., Any]] = {"adamw": adamw}
"""Kernels that must not be compiled with their options as constants."""
