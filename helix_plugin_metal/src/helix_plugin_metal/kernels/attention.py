"""Attention, as MLX's own fused function."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_core.ops.arrays import blank_padding, valid_steps
from helix_core.ops.attention import LIMIT, cache_sources, cached_positions
from helix_core.ops.quarantine import quarantined, released
from helix_plugin_metal.namespace import xp

Array = Any


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
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    q, k, v = blank_padding(xp, valid, q, k, v)
    if position is None:
        position = mx.broadcast_to(mx.arange(length, dtype=mx.int64)[None], (batch, length))
    if keys is None or values is None:
        keys, values = (mx.zeros((batch, 0, *a.shape[2:]), a.dtype) for a in (k, v))
    size = keys.shape[1]
    if 0 in (batch, length):
        return mx.zeros((batch, length, q.shape[2], v.shape[3]), v.dtype), keys, values
    every_key, every_value = mx.concatenate([keys, k], axis=1), mx.concatenate([values, v], axis=1)
    seen = None if alone else _seen(position, size, window)
    # A product with weights of 0 does not hide what is no number.
    (q,), silent = quarantined(xp, q, limit=LIMIT)
    (key,), lost_key = quarantined(xp, every_key, limit=LIMIT)
    (value,), lost = quarantined(xp, every_value)
    turned = (mx.swapaxes(a, 1, 2) for a in (q, key, value))
    mask = "causal" if seen is None else seen[:, None]
    y = mx.swapaxes(mx.fast.scaled_dot_product_attention(*turned, scale=scale, mask=mask), 1, 2)
    lost = (lost + lost_key)[..., 0]
    reached = mx.cumsum(lost, axis=1) if seen is None else seen.astype(lost.dtype) @ lost
    y = released(xp, y, silent + mx.repeat(reached, y.shape[2] // lost.shape[2], axis=2)[..., None])
    (y,) = blank_padding(xp, valid, y)
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
    return xp.where(filled[:, :, None, None], mx.take_along_axis(every, index, axis=1), 0)
