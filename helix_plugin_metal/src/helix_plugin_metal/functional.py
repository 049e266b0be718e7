"""Ops as MLX's own fused functions, which it differentiates by itself."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx

from helix_core.ops import OPS
from helix_core.ops.arrays import valid_steps
from helix_core.ops.attention import cache_sources, cached_positions
from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.elementwise import silu
from helix_plugin_metal.namespace import xp

Array = Any


def rms_norm(x: Array, weight: Array, *, eps: float = 1e-5) -> Array:
    """(..., D), (D,) -> (..., D)."""
    return mx.fast.rms_norm(x, weight, eps)


def add_rms_norm(x: Array, residual: Array, weight: Array, *, eps: float = 1e-5) -> tuple[Array, Array]:
    """rms_norm(x + residual) and x + residual."""
    total = x + residual
    return mx.fast.rms_norm(total, weight, eps), total


def layer_norm(x: Array, weight: Array, bias: Array | None = None, *, eps: float = 1e-5) -> Array:
    """(..., D), (D,), (D,) -> (..., D)."""
    return mx.fast.layer_norm(x, weight, bias, eps)


def softmax(x: Array) -> Array:
    """Over the last axis, summed in float32."""
    return mx.softmax(x, axis=-1, precise=True)


def cross_entropy(logits: Array, targets: Array) -> Array:
    """logits (..., V), targets (...) -> nats (...), in float32."""
    return mx.fast.cross_entropy(logits, targets)


def causal_conv1d(*arrays: Array | None, activation: str = "none") -> tuple[Array, Array]:
    """The op `causal_conv1d`: its reference, but for the activation, of which `tanh` is most on MLX's CPU device."""
    late = activation == "silu"
    y, last = OPS["causal_conv1d"].reference(xp, *arrays, activation="none" if late else activation)
    return (silu(y) if late else y), last


def attention(
    q: Array,
    k: Array,
    v: Array,
    position: Array | None = None,
    keys: Array | None = None,
    values: Array | None = None,
    lengths: Array | None = None,
    *,
    window: int = 0,
    scale: float = 0.0,
) -> tuple[Array, Array, Array]:
    """The op `attention` through `mlx.core.fast.scaled_dot_product_attention`."""
    batch, length, _, width = q.shape
    scale = scale or width**-0.5
    alone = position is None and keys is None and not window
    if position is None:
        position = mx.broadcast_to(mx.arange(length, dtype=mx.int64)[None], (batch, length))
    if keys is None or values is None:
        keys, values = (mx.zeros((batch, 0, *a.shape[2:]), a.dtype) for a in (k, v))
    size = keys.shape[1]
    every_key, every_value = mx.concatenate([keys, k], axis=1), mx.concatenate([values, v], axis=1)
    mask = "causal" if alone else _seen(position, size, window)[:, None]
    turned = (mx.swapaxes(a, 1, 2) for a in (q, every_key, every_value))
    y = mx.swapaxes(mx.fast.scaled_dot_product_attention(*turned, scale=scale, mask=mask), 1, 2)
    if lengths is not None:
        y = mx.where(valid_steps(xp, length, lengths)[:, :, None, None], y, mx.zeros_like(y))
    if not size:
        return y, keys, values
    source, filled = cache_sources(xp, position, lengths, size)
    return y, _cached(every_key, source, filled), _cached(every_value, source, filled)


def _seen(position: Array, size: int, window: int) -> Array:
    """Boolean (B, L, S + L): which of the cached and the new steps each step sees."""
    batch, length = position.shape
    steps = mx.arange(length, dtype=mx.int64)
    first = position[:, :1]
    cached = cached_positions(xp, first, size) - first
    at = mx.concatenate([cached, mx.broadcast_to(steps[None], (batch, length))], axis=1)[:, None, :]
    here = steps[None, :, None]
    seen = (at <= here) & (at >= here - position[..., None]) & (at >= -first[..., None])
    return seen & (here - at < window) if window else seen


def _cached(every: Array, source: Array, filled: Array) -> Array:
    index = mx.broadcast_to(source[:, :, None, None], (*source.shape, *every.shape[2:]))
    return mx.where(filled[:, :, None, None], mx.take_along_axis(every, index, axis=1), 0)


def _adamw(p: Array, g: Array, m: Array, v: Array, numbers: Array) -> tuple[Array, Array, Array]:
    beta1, beta2, eps, keep, rate, root = numbers
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    return p * keep - rate * m / (mx.sqrt(v) / root + eps), m, v


_fused_adamw = mx.compile(_adamw, shapeless=True)


def adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    step: int = 1,
) -> tuple[Array, Array, Array]:
    """The op `adamw`; on a GPU in one kernel, to which what changes from step to step is an input."""
    numbers = (beta1, beta2, eps, 1 - lr * weight_decay, lr / (1 - beta1**step), math.sqrt(1 - beta2**step))
    if on_cpu():
        return _adamw(p, g, m, v, numbers)
    found: tuple[Array, Array, Array] = _fused_adamw(p, g, m, v, [mx.array(n) for n in numbers])
    return found
