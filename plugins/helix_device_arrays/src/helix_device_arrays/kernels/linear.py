"""Affine maps."""

from __future__ import annotations

from helix_device_arrays.array import Array
from helix_device_arrays.matmul import matmul


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """The op `linear`: the bias is added where the product is written."""
    if x.ndim == 1:
        return linear(x[None, :], weight, bias)[0]
    return matmul(x, weight.permute((1, 0)), bias)
