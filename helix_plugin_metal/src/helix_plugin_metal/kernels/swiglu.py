"""The gate of a gated linear unit."""

from __future__ import annotations

from typing import Any

from helix_plugin_metal.kernels.silu import silu

Array = Any


def swiglu(gate: Array, x: Array) -> Array:
    """silu(gate) * x."""
    return silu(gate) * x
