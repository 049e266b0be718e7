"""Rotating pairs of channels by an angle: of the position (RoPE), or a sum over the steps so far."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from helix_core.ops import device_of
from helix_core.ops.arrays import zeros
from helix_plugin_ssm._parts import halves

Array = Any

BLOCK = 256
TERMS = 64


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
    re, im = halves(xp, x, -1)
    return xp.concat([re * cos - im * sin, re * sin + im * cos], axis=-1)


def total_turns(xp: Any, turns: Array) -> Array:
    """Sums of turns (1 is a full circle) over the steps so far, but for whole turns: (B, L, ...) -> the same.

    The angle between two steps is as exact late in a sequence as at its beginning, where one float32 sum over all steps
    would have lost it: no sum here has more than 64 terms.
    """
    B, L = turns.shape[:2]
    count = -(-L // TERMS)
    if count <= 1:
        return xp.cumulative_sum(turns, axis=1)
    short = count * TERMS - L
    if short:
        turns = xp.concat([turns, zeros(xp, (B, short, *turns.shape[2:]), turns)], axis=1)
    within = xp.cumulative_sum(xp.reshape(turns, (B, count, TERMS, *turns.shape[2:])), axis=2)
    ends = within[:, :, -1]
    before = total_turns(xp, ends - xp.floor(ends)) - ends
    total = within + (before - xp.floor(before))[:, :, None]
    return xp.reshape(total, (B, count * TERMS, *turns.shape[2:]))[:, :L]
