"""The loss of a head: in chunks of rows, whose logits the backward pass computes again, where all would be large."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_core.ops.indices import at_targets
from helix_core.ops.linear_cross_entropy import rows_at_once
from helix_plugin_metal.kernels.linear import linear
from helix_plugin_metal.namespace import xp

Array = Any


def linear_cross_entropy(x: Array, weight: Array, targets: Array, *, ignore_index: int | None = None) -> Array:
    """The op `linear_cross_entropy`: (..., D), (V, D), (...) -> nats (...), in float32; NaN for a target outside."""

    def nats(targets: Array) -> Array:
        if len(_pieces(targets.size, weight)) < 2:
            return _whole(x, weight, targets)
        return _chunked(x.reshape(-1, x.shape[-1]), weight, targets.reshape(-1)).reshape(targets.shape)

    return at_targets(xp, "linear_cross_entropy: targets", nats, targets, weight.shape[0], ignore_index)


def _whole(x: Array, weight: Array, targets: Array) -> Array:
    return mx.fast.cross_entropy(linear(x, weight), targets)


def _pieces(rows: int, weight: Array) -> list[slice]:
    classes, width = weight.shape
    size = max(1, rows_at_once(rows, width, classes))
    return [slice(start, start + size) for start in range(0, rows, size)]


def _after(rows: Array, *before: Array) -> Array:
    """The rows, but not before the chunk before is done: MLX would have the logits of many at once."""
    return mx.depends([rows], list(before))[0] if before else rows


@mx.custom_function
def _chunked(x: Array, weight: Array, targets: Array) -> Array:
    nats: list[Array] = []
    for piece in _pieces(len(x), weight):
        nats.append(_whole(_after(x[piece], *nats[-1:]), weight, targets[piece]))
    return mx.concatenate(nats)


@_chunked.vjp
def _backward(primals: Any, gradient: Array, _: Array) -> tuple[Array, Array, Array]:
    x, weight, targets = primals
    to_x: list[Array] = []
    to_weight = mx.zeros_like(weight)
    for piece in _pieces(len(x), weight):
        rows = _after(x[piece], *to_x[-1:], to_weight)
        given = targets[piece]
        _, (to_rows, added) = mx.vjp(lambda x, w, given=given: _whole(x, w, given), [rows, weight], [gradient[piece]])
        to_x.append(to_rows)
        to_weight = to_weight + added
    return mx.concatenate(to_x), to_weight, mx.zeros_like(targets)
