"""Root mean square normalisation, as MLX's own fused function."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

Array = Any


def rms_norm(x: Array, weight: Array, *, eps: float = 1e-5) -> Array:
    """(..., D), (D,) -> (..., D)."""
    return mx.fast.rms_norm(x, weight, eps)
