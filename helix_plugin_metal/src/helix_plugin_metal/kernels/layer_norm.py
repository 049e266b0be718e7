"""Layer normalisation, as MLX's own fused function."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

Array = Any


def layer_norm(x: Array, weight: Array, bias: Array | None = None, *, eps: float = 1e-5) -> Array:
    """(..., D), (D,), (D,) -> (..., D)."""
    return mx.fast.layer_norm(x, weight, bias, eps)
