"""Linear attention with a decay for each key."""

from __future__ import annotations

from helix_device_arrays.array import Array
from helix_device_arrays.kernels._heads import exp, run


def gated_linear_attention(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """The op `gated_linear_attention`."""
    return run(q * scale, exp(log_decay), k, v, None, initial_state, reset, lengths)
