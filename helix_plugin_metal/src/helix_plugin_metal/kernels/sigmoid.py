"""The logistic function."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.kernels._exponentials import by_shrinking

Array = Any


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return _sigmoid(x) if on_cpu() else mx.sigmoid(x)


@mx.custom_function
def _sigmoid(x: Array) -> Array:
    return by_shrinking(lambda xp, shrinking, x: 1 / (1 + shrinking(x)), x)


@_sigmoid.vjp
def _sigmoid_backward(x: Array, gradient: Array, y: Array) -> Array:
    return gradient * (y * (1 - y))
