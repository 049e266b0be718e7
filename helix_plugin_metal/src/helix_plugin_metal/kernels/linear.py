"""The affine map."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.kernels._matmul import matmul, product

Array = Any


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """The op `linear`, in the dtype of x: (..., I), (O, I), (O,) -> (..., O)."""
    if x.dtype != weight.dtype:
        weight, bias = weight.astype(x.dtype), None if bias is None else bias.astype(x.dtype)
    if on_cpu() and x.dtype == mx.float32:
        y = (
            mx.unflatten(_linear(x.reshape(-1, x.shape[-1]), weight), 0, x.shape[:-1])
            if x.ndim != 2
            else _linear(x, weight)
        )
        return y if bias is None else y + bias
    return mx.matmul(x, weight.T) if bias is None else mx.addmm(bias, x, weight.T)


@mx.custom_function
def _linear(x: Array, weight: Array) -> Array:
    return product(x, weight.T)


@_linear.vjp
def _linear_backward(primals: Any, gradient: Array, _: Array) -> tuple[Array, Array]:
    x, weight = primals
    return matmul(gradient, weight), matmul(gradient.T, x)
