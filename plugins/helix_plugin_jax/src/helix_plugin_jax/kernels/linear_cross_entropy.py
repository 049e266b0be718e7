"""The loss of a head: many logits in chunks of rows, which the backward pass computes again."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import lax

from helix_core.ops import OPS
from helix_core.ops.linear_cross_entropy import rows_at_once
from helix_plugin_jax.namespace import xp

Array = Any


def linear_cross_entropy(x: Array, weight: Array, targets: Array, *, ignore_index: int | None = None) -> Array:
    """The op `linear_cross_entropy`; many logits go in chunks of rows, which the backward pass computes again."""
    reference = functools.partial(OPS["linear_cross_entropy"].reference, xp, ignore_index=ignore_index)
    (classes, width), rows = weight.shape, targets.size
    size = rows_at_once(rows, width, classes)
    if size >= rows:
        nats: Array = reference(x, weight, targets)
        return nats
    of_row = jax.checkpoint(lambda at: reference(at[0], weight, at[1]))
    return lax.map(of_row, (x.reshape(rows, width), targets.reshape(rows)), batch_size=size).reshape(targets.shape)
