"""Rotating pairs of channels by an angle in proportion to the position (RoPE)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from helix_core.ops import device_of

Array = Any

BLOCK = 256


def frequencies(width: int) -> np.ndarray:
    """Radians per step of width/2 pairs, from 1 down to 1/10000."""
    return np.asarray(10000.0 ** -np.linspace(0, 1, width // 2))


def angles(F: Any, length: int, width: int) -> tuple[Array, Array]:
    """cos and sin (L, width/2) of position times frequency for positions 0..L-1.

    A position is a multiple of 256 and a rest, and the angle of 256 steps is known modulo 2π: a float32 product of a
    long position would be off by more than the angle of a step.
    """
    rates = frequencies(width)
    per_step, per_block = F.asarray(rates), F.asarray(np.mod(rates * BLOCK, 2 * math.pi))
    position = F.xp.arange(length, device=device_of(per_step))
    block = position // BLOCK
    rest = F.xp.astype(position - BLOCK * block, per_step.dtype)[:, None]
    angle = rest * per_step + F.xp.astype(block, per_step.dtype)[:, None] * per_block
    return F.xp.cos(angle), F.xp.sin(angle)


def rotate(xp: Any, x: Array, cos: Array, sin: Array) -> Array:
    """x (..., width) as width/2 pairs (first half, second half), each turned by its angle."""
    half = x.shape[-1] // 2
    re, im = x[..., :half], x[..., half:]
    return xp.concat([re * cos - im * sin, re * sin + im * cos], axis=-1)
