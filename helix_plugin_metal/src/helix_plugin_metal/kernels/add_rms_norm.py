"""A sum and its root mean square normalisation."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

Array = Any


def add_rms_norm(x: Array, residual: Array, weight: Array, *, eps: float = 1e-5) -> tuple[Array, Array]:
    """rms_norm(x + residual) and x + residual."""
    total = x + residual
    return mx.fast.rms_norm(total, weight, eps), total
