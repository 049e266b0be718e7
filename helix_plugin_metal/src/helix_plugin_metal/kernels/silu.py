"""x * sigmoid(x), which is also called swish."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.kernels._exponentials import by_shrinking
from helix_plugin_metal.kernels.sigmoid import sigmoid

Array = Any


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return _silu(x) if on_cpu() else x * mx.sigmoid(x)


@mx.custom_function
def _silu(x: Array) -> Array:
    return by_shrinking(lambda xp, shrinking, x: x / (1 + shrinking(x)), x)


@_silu.vjp
def _silu_backward(x: Array, gradient: Array, y: Array) -> Array:
    s = sigmoid(x)
    return gradient * (s + y * (1 - s))
