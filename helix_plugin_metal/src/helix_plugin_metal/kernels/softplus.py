"""log(1 + exp(x))."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.kernels._exponentials import by_shrinking
from helix_plugin_metal.kernels.sigmoid import sigmoid

Array = Any


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return _softplus(x) if on_cpu() else mx.logaddexp(x, 0)


@mx.custom_function
def _softplus(x: Array) -> Array:
    return by_shrinking(_softplus_of, x)


def _softplus_of(xp: Any, shrinking: Callable[[Array], Array], x: Array) -> Array:
    t = shrinking(xp.abs(x))
    u = 1 + t
    # log(1 + t), with what the rounding of 1 + t lost.
    return xp.maximum(x, 0) + (xp.log(u) - ((u - 1) - t) / u)


@_softplus.vjp
def _softplus_backward(x: Array, gradient: Array, _: Array) -> Array:
    return gradient * sigmoid(x)
