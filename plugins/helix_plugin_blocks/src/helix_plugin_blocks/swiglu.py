"""SwiGLU: the MLP of most current language models."""

from __future__ import annotations

from typing import Any

from helix_core.ops import OpTable
from helix_plugin_blocks._mlp import GatedMLP

Array = Any


class SwiGLU(GatedMLP):
    """Gated MLP whose gate is SiLU.

        y = W_down (silu(W_gate x) * W_up x)

    No state: every step on its own. Parameter names as in Hugging Face's Llama.
    Source: Shazeer, GLU Variants Improve Transformer, 2020.

    >>> from helix_core import create
    >>> layer = create("layer", "swiglu", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (33792, 0)
    """

    def gate(self, F: OpTable, gate: Array, up: Array) -> Array:
        return F.swiglu(gate, up)
