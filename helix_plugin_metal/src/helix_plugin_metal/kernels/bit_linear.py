"""BitNet's linear map by MLX's product with weights of two bits, on its GPU and its CPU device.

MLX's weights are scale * code + bias for groups of columns: with 1 and -1, codes 0, 1 and 2 are the ternary weights.
Its bytes hold neighbouring columns and ours hold one of each plane, so the activations change places, not the weights.
Levels and their sums are whole numbers below 2^24, which float32 holds: the product is exact.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_core.ops import OPS
from helix_core.ops.bit_linear import LEVELS, SMALLEST, check_shapes
from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.namespace import xp

Array = Any
GROUPS = (128, 64, 32)
"""Columns that may share a scale in MLX."""
MOST_COLUMNS = 2**24 // (2 * LEVELS)
FEW_ROWS = 12
"""Beyond, MLX's CPU device is faster with weights that are unpacked into floats."""


def bit_linear(x: Array, packed: Array, scale: Array, bias: Array | None = None) -> Array:
    """The op `bit_linear`; its reference for columns not in 32s, and for many rows on the CPU device."""
    check_shapes(x.shape, packed.shape)
    rows, plane = packed.shape
    group = next((g for g in GROUPS if 4 * plane % g == 0), None)
    many = on_cpu() and x.size > FEW_ROWS * x.shape[-1]
    if group is None or many or packed.dtype != mx.uint8 or 4 * plane > MOST_COLUMNS or x.size == 0:
        return OPS["bit_linear"].reference(xp, x, packed, scale, bias)
    largest = mx.max(mx.abs(x), axis=-1, keepdims=True)
    s = LEVELS / mx.maximum(largest, SMALLEST)
    levels = mx.clip(mx.round(x * s), -LEVELS - 1, LEVELS).reshape(-1, x.shape[-1])
    if x.shape[-1] != 4 * plane:
        levels = mx.pad(levels, ((0, 0), (0, 4 * plane - x.shape[-1])))
    levels = mx.unflatten(levels, 1, (4, plane)).swapaxes(1, 2).reshape(-1, 4 * plane)
    one = mx.ones((rows, 4 * plane // group))
    y = mx.quantized_matmul(levels, packed.view(mx.uint32), one, -one, True, group, 2)
    y = y.reshape(*x.shape[:-1], rows) * (scale / s)
    return y if bias is None else y + bias
