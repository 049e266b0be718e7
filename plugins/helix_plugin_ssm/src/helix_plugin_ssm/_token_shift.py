"""RWKV's token shift: each channel of a step mixed with that of the step before."""

from __future__ import annotations

from typing import Any

from helix_core.ops import OpTable

Array = Any


def token_shift(
    F: OpTable, x: Array, before: Array, state: Array | None, reset: Array | None, lengths: Array | None
) -> tuple[Array, Array]:
    """(1 - before) x_t + before x_{t-1} for every channel, and the last input: a convolution with two taps.

    x (B, L, D), before (D,), state (B, 1, D) or None -> (B, L, D), (B, 1, D).
    """
    taps = F.xp.stack([before, 1 - before], axis=-1)
    y, last = F.causal_conv1d(x, taps, initial_state=state, reset=reset, lengths=lengths)
    return y, last
