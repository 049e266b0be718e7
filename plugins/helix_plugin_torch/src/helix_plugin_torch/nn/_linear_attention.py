"""Linear attention and its relatives: (B, L, D) -> (B, L, D).

B sequences, L positions, D channels.
"""

from __future__ import annotations

from helix_plugin_torch.nn._layer import HelixLayer


class RetNet(HelixLayer):
    """Multi-scale retention, a fixed decay a head: (B, L, D) -> (B, L, D).

    Source: Sun et al., Retentive Network: A Successor to Transformer for Large Language Models, 2023.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.RetNet(16, n_heads=2)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "retnet"


class GLA(HelixLayer):
    """Gated linear attention, a decay for each key: (B, L, D) -> (B, L, D).

    Source: Yang, Wang, Shen, Panda and Kim, Gated Linear Attention Transformers with Hardware-Efficient Training, 2023.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.GLA(16, n_heads=2)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "gla"


class GatedDeltaNet(HelixLayer):
    """Gated delta rule, which overwrites what a key held: (B, L, D) -> (B, L, D).

    Source: Yang, Kautz and Hatamizadeh, Gated Delta Networks: Improving Mamba2 with Delta Rule, 2024.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.GatedDeltaNet(16, n_heads=2)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "gated_deltanet"


class RWKV7(HelixLayer):
    """RWKV-7 "Goose" time mix: (B, L, D) -> (B, L, D).

    Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.RWKV7(16, head_dim=8)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "rwkv7"


class RWKV4(HelixLayer):
    """RWKV-4 time mix: (B, L, D) -> (B, L, D).

    Source: Peng et al., RWKV: Reinventing RNNs for the Transformer Era, 2023.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.RWKV4(16)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "rwkv4"
