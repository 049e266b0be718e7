"""Mamba's scan, part by part: all states of a part are there at once."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from helix_plugin_jax.kernels._scan import Scan, masked, real_steps, scan_here

Array = Any

einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


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
    real = None if lengths is None else real_steps(u, lengths)
    if real is not None:
        u, delta, B, C = (jnp.where(real[..., None], s, 0) for s in (u, delta, B, C))
        z = None if z is None else jnp.where(real[..., None], z, 0)
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = jax.nn.softplus(delta)
    arrays = (u, delta, B, C, reset, real)
    y, h = _one(h, A, arrays) if u.shape[1] == 1 else _parts(scan or scan_here(), h, A, arrays)
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * jax.nn.silu(z)
    return y if real is None else jnp.where(real[..., None], y, 0), h


def _one(h: Array, A: Array, arrays: tuple[Any, ...]) -> tuple[Array, Array]:
    """What `_parts` returns, for one step: with nothing to reorder for, decoding is quicker."""
    u, delta, B, C, reset, real = arrays
    decay, added, fresh = masked(jnp.exp(delta[..., None] * A), (delta * u)[..., None] * B[:, :, None], reset, real)
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
        states = scan.recurrence(h, *masked(jnp.exp(exponents), added, reset, real))
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
