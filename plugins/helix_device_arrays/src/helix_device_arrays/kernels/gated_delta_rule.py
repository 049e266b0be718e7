"""The gated delta rule, by the kernel of RWKV-7."""

from __future__ import annotations

from helix_device_arrays.array import Array
from helix_device_arrays.kernels._heads import exp, run


def gated_delta_rule(
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    beta: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """The op `gated_delta_rule`: RWKV-7's recurrence with a = k, b = -α β k, and keys β k."""
    batch, length, groups, keys = q.shape
    heads = v.shape[2]
    spread = (batch, length, groups, heads // groups, keys)
    q, k = (a[:, :, :, None, :].broadcast(spread).reshape((batch, length, heads, keys)) for a in (q * scale, k))
    alpha, beta = exp(log_decay)[..., None], beta[..., None]
    return run(q, alpha, beta * k, v, (k, -(alpha * beta) * k), initial_state, reset, lengths)
