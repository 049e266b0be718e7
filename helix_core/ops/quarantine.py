"""Values that are no numbers, taken out before a product mixes steps, and put back behind it where they belong.

A product that hides steps behind weights of 0 does not hide a NaN or an infinity: 0 * NaN is NaN. Recurrences need no
such care, and neither do kernels that leave hidden steps out.
"""

from __future__ import annotations

import math
from typing import Any

Array = Any


def healthy(xp: Any, a: Array, limit: float = math.inf) -> Array:
    """Where a is a number of a size below `limit`; above, products of two may overflow."""
    return xp.abs(a) < limit  # False for NaN


def quarantined(xp: Any, *arrays: Array, limit: float = math.inf) -> tuple[list[Array], Array]:
    """Arrays (..., D) with zeros for what is not healthy, and where any of them had such: float (..., 1), 1 or 0."""
    kept, sound = [], None
    for a in arrays:
        good = healthy(xp, a, limit)
        kept.append(xp.where(good, a, xp.zeros_like(a)))
        every = xp.all(good, axis=-1, keepdims=True)
        sound = every if sound is None else xp.logical_and(sound, every)
    return kept, xp.astype(xp.logical_not(sound), arrays[0].dtype)


def released(xp: Any, a: Array, reached: Array) -> Array:
    """NaN in a where `reached`, a number of times, is not 0."""
    return xp.where(reached > 0, xp.full_like(a, math.nan), a)
