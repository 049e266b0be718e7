"""The state of a convolution: its last inputs, through padding and packed documents."""

from __future__ import annotations

from typing import Any

from helix_core.ops import device_of

Array = Any


def carried(xp: Any, history: Array, new: Array, reset: Array | None, lengths: Array | None) -> Array:
    """The last S inputs after a call, oldest first: history (B, S, D), new (B, L, D) -> (B, S, D).

    Inputs of earlier documents count as zeros, padding does not count.
    """
    batch, kept, channels = history.shape
    length = new.shape[1]
    inputs = xp.concat([history, xp.astype(new, history.dtype)], axis=1)
    if reset is None and lengths is None:
        return inputs[:, length:, :]
    steps = xp.arange(length, dtype=xp.int64, device=device_of(new))[None, :]
    ends = xp.full((batch, 1), length, dtype=xp.int64, device=device_of(new))
    if lengths is not None:
        ends = xp.astype(lengths, xp.int64)[:, None]
    at = ends + xp.arange(kept, dtype=xp.int64, device=device_of(new))[None, :]
    last = xp.take_along_axis(inputs, xp.broadcast_to(at[..., None], (batch, kept, channels)), axis=1)
    if reset is not None:
        starts = xp.where(xp.logical_and(reset, steps < ends), steps, xp.full_like(steps, -kept))
        inside = at - kept >= xp.max(starts, axis=1, keepdims=True)
        last = xp.where(inside[..., None], last, xp.zeros_like(last))
    return last
