"""Cross entropy, as MLX's own fused function."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_core.ops.indices import at_targets
from helix_plugin_metal.namespace import xp

Array = Any


def cross_entropy(logits: Array, targets: Array, *, ignore_index: int | None = None) -> Array:
    """logits (..., V), targets (...) -> nats (...), in float32; NaN for a target outside the classes."""

    def nats(targets: Array) -> Array:
        return mx.fast.cross_entropy(logits, targets)

    return at_targets(xp, "cross_entropy: targets", nats, targets, logits.shape[-1], ignore_index)
