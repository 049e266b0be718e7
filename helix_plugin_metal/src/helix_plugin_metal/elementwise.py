"""Exponentials. On MLX's CPU device those of many numbers are NumPy's; of few and in compiled functions, powers of two:
`power` takes a third of the time of `exp` or `tanh` and is as exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.host import numbers

Array = Any
LOG2_E = 1.4426950408889634
LARGE = 1 << 14
"""Numbers from which on it pays to wait for them."""


def exp_product(x: Array, rates: Array) -> Array:
    """exp(x * rates) of arrays that broadcast; `rates` is the smaller one."""
    return mx.power(2.0, x * (rates * LOG2_E)) if on_cpu() else mx.exp(x * rates)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return _sigmoid(x) if on_cpu() else mx.sigmoid(x)


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return _silu(x) if on_cpu() else x * mx.sigmoid(x)


def swiglu(gate: Array, x: Array) -> Array:
    """silu(gate) * x."""
    return silu(gate) * x


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return _softplus(x) if on_cpu() else mx.logaddexp(x, 0)


def _of(formula: Callable[[Any, Callable[[Array], Array], Array], Array], x: Array) -> Array:
    """A formula of x and of exp(-x), which is infinite where that is too large: NumPy's where it pays to wait for x."""
    found = numbers(x) if x.size >= LARGE else None
    if found is None:
        return formula(mx, lambda a: mx.power(2.0, a * -LOG2_E), x)
    with np.errstate(all="ignore"):
        return mx.array(formula(np, lambda a: np.exp(-a), found[0]))


@mx.custom_function
def _sigmoid(x: Array) -> Array:
    return _of(lambda xp, shrinking, x: 1 / (1 + shrinking(x)), x)


@_sigmoid.vjp
def _sigmoid_backward(x: Array, gradient: Array, y: Array) -> Array:
    return gradient * (y * (1 - y))


@mx.custom_function
def _silu(x: Array) -> Array:
    return _of(lambda xp, shrinking, x: x / (1 + shrinking(x)), x)


@_silu.vjp
def _silu_backward(x: Array, gradient: Array, y: Array) -> Array:
    s = _sigmoid(x)
    return gradient * (s + y * (1 - s))


@mx.custom_function
def _softplus(x: Array) -> Array:
    return _of(_softplus_of, x)


def _softplus_of(xp: Any, shrinking: Callable[[Array], Array], x: Array) -> Array:
    t = shrinking(xp.abs(x))
    u = 1 + t
    # log(1 + t), with what the rounding of 1 + t lost.
    return xp.maximum(x, 0) + (xp.log(u) - ((u - 1) - t) / u)


@_softplus.vjp
def _softplus_backward(x: Array, gradient: Array, _: Array) -> Array:
    return gradient * _sigmoid(x)
