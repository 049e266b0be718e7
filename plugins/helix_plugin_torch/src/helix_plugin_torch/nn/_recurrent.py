"""Recurrent layers that train in parallel: (B, L, D) -> (B, L, D).

B sequences, L positions, D channels.
"""

from __future__ import annotations

from helix_plugin_torch.nn._layer import HelixLayer


class MinGRU(HelixLayer):
    """Gated recurrent unit as one linear scan: (B, L, D) -> (B, L, D).

    Source: Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, Were RNNs All We Needed?, 2024.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.MinGRU(16)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "mingru"


class MinLSTM(HelixLayer):
    """Long short-term memory as one linear scan: (B, L, D) -> (B, L, D).

    Source: Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, Were RNNs All We Needed?, 2024.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.MinLSTM(16)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "minlstm"
