"""Layers that treat every step alone, or with the one before: (B, L, D) -> (B, L, D).

B sequences, L positions, D channels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helix_core.errors import UsageError
from helix_plugin_torch.nn._layer import HelixLayer


class SwiGLU(HelixLayer):
    """Gated MLP with a SiLU gate: (B, L, D) -> (B, L, D).

    Source: Shazeer, GLU Variants Improve Transformer, 2020.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.SwiGLU(16)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "swiglu"


class GeGLU(HelixLayer):
    """Gated MLP with a GELU gate: (B, L, D) -> (B, L, D).

    Source: Shazeer, GLU Variants Improve Transformer, 2020.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.GeGLU(16)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "geglu"


class GeluMLP(HelixLayer):
    """The transformer's MLP with a GELU: (B, L, D) -> (B, L, D).

    Source: Vaswani et al., Attention Is All You Need, 2017.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.GeluMLP(16)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "gelu_mlp"


class RWKV7ChannelMix(HelixLayer):
    """RWKV-7 channel mix, the MLP beside `RWKV7`: (B, L, D) -> (B, L, D).

    Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.RWKV7ChannelMix(16)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "rwkv7_channel_mix"


class RWKV4ChannelMix(HelixLayer):
    """RWKV-4 channel mix, the MLP beside `RWKV4`: (B, L, D) -> (B, L, D).

    Source: Peng et al., RWKV: Reinventing RNNs for the Transformer Era, 2023.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.RWKV4ChannelMix(16)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "rwkv4_channel_mix"


class MoE(HelixLayer):
    """Mixture of experts, among which a gate chooses, or which choose their steps: (B, L, D) -> (B, L, D).

    Sources: Shazeer et al., Outrageously Large Neural Networks, 2017; Fedus, Zoph and Shazeer, Switch Transformers,
    2021 (loss); Zhou et al., Mixture-of-Experts with Expert Choice Routing, 2022.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> layer = nn.MoE(16, n_experts=4, top_k=1)
    >>> y, loss = layer(torch.ones(2, 7, 16), return_loss=True)
    >>> y.shape, loss.shape
    (torch.Size([2, 7, 16]), torch.Size([]))
    """

    layer = "moe"

    def forward(  # type: ignore[override]  # a layer's arguments, by name
        self,
        x: Tensor,
        reset: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        state: Any = None,
        return_loss: bool = False,
    ) -> Any:
        """As every layer's; with `return_loss`, the scalar to add to the training loss comes after y.

        It is the experts' balance times the option `balance`, and 0 where experts choose. Raises UsageError for
        `return_loss` beside a state.
        """
        if not return_loss:
            return super().forward(x, reset, lengths, state=state)
        if state is not None:
            raise UsageError("the loss is of training, and a state of decoding: pass one of them")
        F, params = self._ready()
        y, _, loss = self.model.apply_with_loss(F, params, x, reset=reset, lengths=lengths)
        return self.dropout(y), x.new_zeros(()) if loss is None else loss
