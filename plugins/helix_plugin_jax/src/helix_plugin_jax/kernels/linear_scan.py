"""First-order recurrences: in log L parallel steps on accelerators, one after the other on processors."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from helix_plugin_jax.kernels._scan import Scan, masked, real_steps, scan_here

Array = Any


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
    real = None if lengths is None else real_steps(x, lengths)
    steps = (None if s is None else jnp.moveaxis(s, 1, 0) for s in masked(a, x, reset, real))
    h = (scan or scan_here()).recurrence(start, *steps)
    y = jnp.moveaxis(h, 0, 1)
    return y if real is None else jnp.where(real[..., None], y, 0), h[-1]
