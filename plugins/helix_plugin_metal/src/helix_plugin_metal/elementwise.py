"""Exponentials. On MLX's CPU device, `power` takes a third of the time of `exp` or `tanh` and is as exact."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_plugin_metal.device import on_cpu

Array = Any
LOG2_E = 1.4426950408889634


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


def _shrinking(x: Array) -> Array:
    """exp(-x), infinite where that is too large."""
    return mx.power(2.0, x * -LOG2_E)


@mx.custom_function
def _sigmoid(x: Array) -> Array:
    return 1 / (1 + _shrinking(x))


@_sigmoid.vjp
def _sigmoid_backward(x: Array, gradient: Array, y: Array) -> Array:
    return gradient * (y * (1 - y))


@mx.custom_function
def _silu(x: Array) -> Array:
    return x / (1 + _shrinking(x))


@_silu.vjp
def _silu_backward(x: Array, gradient: Array, y: Array) -> Array:
    s = 1 / (1 + _shrinking(x))
    return gradient * (s + y * (1 - s))


@mx.custom_function
def _softplus(x: Array) -> Array:
    t = _shrinking(mx.abs(x))
    u = 1 + t
    # log(1 + t), with what the rounding of 1 + t lost.
    return mx.maximum(x, 0) + (mx.log(u) - ((u - 1) - t) / u)


@_softplus.vjp
def _softplus_backward(x: Array, gradient: Array, _: Array) -> Array:
    return gradient / (1 + _shrinking(x))
