"""Rotary positions (RoPE): pairs of channels turned by an angle in proportion to the position."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from helix_core.ops import OpTable

Array = Any

BLOCK = 256


def angles(F: OpTable, position: Array, width: int, theta: float) -> tuple[Array, Array]:
    """cos and sin (..., 1, width/2) of integer positions (...) times theta^(-2i/width), i < width/2.

    A position is a multiple of 256 and a rest, and the angle of 256 steps is known modulo 2π: a float32 product of a
    long position would be off by more than the angle of a step.
    """
    rates = theta ** -(np.arange(0, width, 2) / width)
    per_step, per_block = F.asarray(rates), F.asarray(np.mod(rates * BLOCK, 2 * math.pi))
    block = position // BLOCK
    rest = F.xp.astype(position - BLOCK * block, per_step.dtype)[..., None, None]
    angle = rest * per_step + F.xp.astype(block, per_step.dtype)[..., None, None] * per_block
    return F.xp.cos(angle), F.xp.sin(angle)


def rotate(xp: Any, x: Array, cos: Array, sin: Array) -> Array:
    """x (B, L, H, K): its first channels as pairs (first half, second half) turned by their angles, the rest as is."""
    half = cos.shape[-1]
    re, im = x[..., :half], x[..., half : 2 * half]
    turned = [re * cos - im * sin, im * cos + re * sin]
    return xp.concat([*turned, x[..., 2 * half :]] if x.shape[-1] > 2 * half else turned, axis=-1)
