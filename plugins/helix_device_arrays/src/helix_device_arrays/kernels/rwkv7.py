"""RWKV-7's recurrence."""

from __future__ import annotations

from helix_device_arrays.array import Array
from helix_device_arrays.kernels._heads import exp, run


def rwkv7(
    r: Array,
    log_decay: Array,
    k: Array,
    v: Array,
    a: Array,
    b: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """The op `rwkv7`."""
    return run(r, exp(log_decay), k, v, (a, b), initial_state, reset, lengths)
