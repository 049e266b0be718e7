"""The few array idioms that references share, on any array-API namespace."""

from __future__ import annotations

from typing import Any

Array = Any


def zeros(xp: Any, shape: tuple[int, ...], like: Array) -> Array:
    """Zeros of `shape` with the dtype and device of `like`."""
    return xp.zeros(shape, dtype=like.dtype, device=like.device)


def arange(xp: Any, stop: int, like: Array) -> Array:
    """0, 1, ..., stop-1 with the dtype and device of `like`."""
    return xp.arange(stop, dtype=like.dtype, device=like.device)


def valid_steps(xp: Any, length: int, lengths: Array) -> Array:
    """Boolean (B, L): True where step t of row b lies before its right padding."""
    steps = xp.arange(length, dtype=lengths.dtype, device=lengths.device)
    return steps[None, :] < lengths[:, None]
