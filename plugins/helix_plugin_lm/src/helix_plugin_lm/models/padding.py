"""Any mask of real tokens, turned into right padding and back.

A masked token is one that is not there. Moving the real tokens of each row to its front, in order, therefore
changes nothing for a causal model, and layers need to know about one kind of padding only.
"""

from __future__ import annotations

from typing import Any

Array = Any


def pack_left(xp: Any, mask: Array) -> tuple[Array, Array, Array]:
    """mask (B, L), True for real tokens -> order (B, L) that brings them to the front, its inverse, lengths (B,)."""
    order = xp.argsort(xp.astype(xp.logical_not(mask), xp.int32), axis=1, stable=True)
    inverse = xp.argsort(order, axis=1, stable=True)
    return order, inverse, xp.sum(xp.astype(mask, xp.int64), axis=1)


def reorder(xp: Any, x: Array, order: Array) -> Array:
    """Take x (B, L) or (B, L, D) along its time axis in the order (B, L)."""
    if len(x.shape) == 3:
        order = xp.broadcast_to(order[..., None], (*order.shape, x.shape[2]))
    return xp.take_along_axis(x, order, axis=1)
