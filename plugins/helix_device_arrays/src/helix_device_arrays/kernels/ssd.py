"""Mamba-2's recurrence."""

from __future__ import annotations

import math

from helix_device_arrays.array import Array, apply
from helix_device_arrays.kernels._arguments import marks
from helix_device_arrays.kernels._heads import exp, run


def ssd(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    dt_bias: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    dt_softplus: bool = False,
    dt_min: float = 0.0,
    dt_max: float = math.inf,
) -> tuple[Array, Array]:
    """The op `ssd`: linear attention with one decay for each head."""
    device = x.device
    batch, length, heads, _ = x.shape
    groups, states = B.shape[2:]
    if dt_bias is not None:
        dt = dt + dt_bias
    if dt_softplus:
        small = apply(device, "log1p", (exp(-abs(dt)),))
        dt = small + apply(device, "where", (dt > 0, dt, 0.0))
    dt = apply(device, "maximum", (dt, dt_min))
    if dt_max < math.inf:
        dt = apply(device, "minimum", (dt, dt_max))
    dt = Array(device, dt.leaf())[..., None]

    def to_heads(a: Array) -> Array:
        shared = a[:, :, :, None, :].broadcast((batch, length, groups, heads // groups, states))
        return shared.reshape((batch, length, heads, states))

    y, last = run(to_heads(C), exp(dt * A[:, None]), to_heads(B), dt * x, None, initial_state, reset, lengths)
    if D is not None:
        added = D[:, None] * x
        if lengths is not None:
            code = marks(None, lengths, batch, length, device)
            assert code is not None
            added = apply(device, "where", (code[:, :, None, None] == 0, added, 0.0))
        y = y + added
    return y, last
