"""Ops that are better said in another way than their reference: JAX differentiates and compiles them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from helix_core.ops import OPS
from helix_core.ops.linear_cross_entropy import rows_at_once
from helix_plugin_jax.namespace import xp
from helix_plugin_jax.recurrence import in_parallel, in_steps

Array = Any
Recurrence = Callable[[Array, Array, Array, Array | None], Array]


class Scan(NamedTuple):
    """A recurrence, and the steps of a part: its states (part, B, N, D) are all there at once."""

    recurrence: Recurrence
    part: int


einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
ON_PROCESSORS, ON_ACCELERATORS = Scan(in_steps, 16), Scan(in_parallel, 256)


def _scan() -> Scan:
    return ON_PROCESSORS if jax.default_backend() == "cpu" else ON_ACCELERATORS


def linear_scan(
    a: Array,
    x: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    scan: Scan | None = None,
) -> tuple[Array, Array]:
    """The op `linear_scan`: in log L parallel steps on accelerators, one after the other on processors."""
    start = jnp.zeros_like(x[:, 0]) if initial_state is None else initial_state
    if x.shape[1] == 0:
        return x, start
    real = None if lengths is None else _real(x, lengths)
    steps = (None if s is None else jnp.moveaxis(s, 1, 0) for s in _masked(a, x, reset, real))
    h = (scan or _scan()).recurrence(start, *steps)
    y = jnp.moveaxis(h, 0, 1)
    return y if real is None else jnp.where(real[..., None], y, 0), h[-1]


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
    scan: Scan | None = None,
) -> tuple[Array, Array]:
    """The op `selective_scan`, part by part; the backward pass keeps the states between parts, no others."""
    h = jnp.zeros((u.shape[0], u.shape[2], A.shape[1]), u.dtype) if initial_state is None else initial_state
    if u.shape[1] == 0:
        return jnp.zeros_like(u), h
    real = None if lengths is None else _real(u, lengths)
    if real is not None:
        u, delta, B, C = (jnp.where(real[..., None], s, 0) for s in (u, delta, B, C))
        z = None if z is None else jnp.where(real[..., None], z, 0)
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = jax.nn.softplus(delta)
    arrays = (u, delta, B, C, reset, real)
    y, h = _one(h, A, arrays) if u.shape[1] == 1 else _parts(scan or _scan(), h, A, arrays)
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * jax.nn.silu(z)
    return y if real is None else jnp.where(real[..., None], y, 0), h


def _one(h: Array, A: Array, arrays: tuple[Any, ...]) -> tuple[Array, Array]:
    """What `_parts` returns, for one step: with nothing to reorder for, decoding is quicker."""
    u, delta, B, C, reset, real = arrays
    decay, added, fresh = _masked(jnp.exp(delta[..., None] * A), (delta * u)[..., None] * B[:, :, None], reset, real)
    h = decay[:, 0] * (h if fresh is None else jnp.where(fresh[:, 0], 0, h)) + added[:, 0]
    return einsum("bdn,btn->btd", h, C), h


def _parts(scan: Scan, h: Array, A: Array, arrays: tuple[Any, ...]) -> tuple[Array, Array]:
    """State (B, D, N), A, and u, delta, B, C, reset, real -> y (B, L, D) and the last state.

    Inside, time comes first and channels last: N is too short for vectors. Products are einsums, whose derivatives
    are products of matrices and vectors again, where a sum's would be an array of (part, B, N, D).
    """
    A = A.T

    @jax.checkpoint
    def part(h: Array, at: Any) -> tuple[Array, Array]:
        u, delta, B, C, reset, real = at
        exponents, added = delta[:, :, None] * A, einsum("tbn,tbd->tbnd", B, delta * u)
        states = scan.recurrence(h, *_masked(jnp.exp(exponents), added, reset, real))
        return states[-1], einsum("tbn,tbnd->tbd", C, states)

    steps = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), arrays)
    length = arrays[0].shape[1]
    whole = length - length % scan.part
    h, ys = jnp.moveaxis(h, 1, 2), []
    if whole:
        h, y = lax.scan(part, h, jax.tree.map(lambda a: a[:whole].reshape(-1, scan.part, *a.shape[1:]), steps))
        ys.append(y.reshape(whole, *y.shape[2:]))
    if whole < length:
        h, y = part(h, jax.tree.map(lambda a: a[whole:], steps))
        ys.append(y)
    return jnp.moveaxis(jnp.concatenate(ys), 0, 1), jnp.moveaxis(h, 1, 2)


def _real(x: Array, lengths: Array) -> Array:
    """Boolean (B, L): True for steps that are no padding."""
    return jnp.arange(x.shape[1])[None, :] < lengths[:, None]


def _masked(a: Array, x: Array, reset: Array | None, real: Array | None) -> tuple[Array, Array, Array | None]:
    """Decays, what is added, (B, L, ...), and where a document starts, if any does; padding changes nothing."""
    spread = (..., *(None,) * (a.ndim - 2))
    if reset is not None:
        reset = (reset if real is None else reset & real)[spread]
    if real is not None:
        a, x = jnp.where(real[spread], a, 1), jnp.where(real[spread], x, 0)
    return a, x, reset


def linear_cross_entropy(x: Array, weight: Array, targets: Array, *, ignore_index: int | None = None) -> Array:
    """The op `linear_cross_entropy`; many logits go in chunks of rows, which the backward pass computes again."""
    reference = functools.partial(OPS["linear_cross_entropy"].reference, xp, ignore_index=ignore_index)
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
