"""Short convolutions over time."""

from __future__ import annotations

from typing import Any

from helix_core.ops import OPS
from helix_plugin_metal.kernels.silu import silu
from helix_plugin_metal.namespace import xp

Array = Any


def causal_conv1d(*arrays: Array | None, activation: str = "none") -> tuple[Array, Array]:
    """The op `causal_conv1d`: its reference, but for the activation, of which `tanh` is most on MLX's CPU device."""
    late = activation == "silu"
    y, last = OPS["causal_conv1d"].reference(xp, *arrays, activation="none" if late else activation)
    return (silu(y) if late else y), last
