"""Gradient clipping by global norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Array = Any


def global_norm(xp: Any, grads: Mapping[str, Array]) -> Array:
    """sqrt(Σ g²) over every gradient, as a scalar array."""
    total: Any = 0.0
    for g in grads.values():
        total = total + xp.sum(g * g)
    return xp.sqrt(total)


def clip_by_global_norm(
    xp: Any, grads: Mapping[str, Array], max_norm: float, norm: Array | None = None
) -> tuple[dict[str, Array], Array]:
    """Scale all gradients by min(1, max_norm / norm); returns them and the norm before clipping, computed if not given.

    Source: Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.
    """
    norm = global_norm(xp, grads) if norm is None else norm
    scale = xp.minimum(max_norm / (norm + 1e-6), xp.ones_like(norm))
    return {name: g * scale for name, g in grads.items()}, norm
