"""Layers that look back at single steps: (B, L, D) -> (B, L, D).

B sequences, L positions, D channels.
"""

from __future__ import annotations

from helix_plugin_torch.nn._layer import HelixLayer


class Attention(HelixLayer):
    """Softmax attention with grouped heads, rotary positions and a window: (B, L, D) -> (B, L, D).

    Sources: Vaswani et al., Attention Is All You Need, 2017; Ainslie et al., GQA, 2023; Su et al., RoFormer, 2021.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.Attention(16, n_heads=2, n_kv_heads=1)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "attention"


class MemoryRead(HelixLayer):
    """Reads the best of the steps before it, by similarity and importance: (B, L, D) -> (B, L, D).

    Source: Wu, Rabe, Hutchins and Szegedy, Memorizing Transformers, 2022.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.MemoryRead(16, d_key=8)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "memory_read"
