"""What the scans share: how the device goes through time, and what documents and padding do to a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from helix_plugin_jax.kernels._recurrence import in_parallel, in_steps

Array = Any

Recurrence = Callable[[Array, Array, Array, Array | None], Array]


class Scan(NamedTuple):
    """A recurrence, and the steps of a part: its states (part, B, N, D) are all there at once."""

    recurrence: Recurrence
    part: int


ON_PROCESSORS, ON_ACCELERATORS = Scan(in_steps, 16), Scan(in_parallel, 256)


def scan_here() -> Scan:
    """How the device goes through time."""
    return ON_PROCESSORS if jax.default_backend() == "cpu" else ON_ACCELERATORS


def real_steps(x: Array, lengths: Array) -> Array:
    """Boolean (B, L): True for steps that are no padding."""
    return jnp.arange(x.shape[1])[None, :] < lengths[:, None]


def masked(a: Array, x: Array, reset: Array | None, real: Array | None) -> tuple[Array, Array, Array | None]:
    """Decays, what is added, (B, L, ...), and where a document starts, if any does; padding changes nothing."""
    spread = (..., *(None,) * (a.ndim - 2))
    if reset is not None:
        reset = (reset if real is None else reset & real)[spread]
    if real is not None:
        a, x = jnp.where(real[spread], a, 1), jnp.where(real[spread], x, 0)
    return a, x, reset
