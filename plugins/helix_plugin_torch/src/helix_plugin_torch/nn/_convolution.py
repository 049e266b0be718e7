"""Long convolutions: (B, L, D) -> (B, L, D).

B sequences, L positions, D channels.
"""

from __future__ import annotations

from helix_plugin_torch.nn._layer import HelixLayer


class Hyena(HelixLayer):
    """Gated long convolutions with implicit filters: (B, L, D) -> (B, L, D).

    Source: Poli et al., Hyena Hierarchy: Towards Larger Convolutional Language Models, 2023.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.Hyena(16, l_max=32)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "hyena"


class HyenaRecurrent(HelixLayer):
    """Hyena whose long filters are recurrences of a few modes: (B, L, D) -> (B, L, D).

    Source: Massaroli et al., Laughing Hyena Distillery: Extracting Compact Recurrences from Convolutions, 2023.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.HyenaRecurrent(16, modes=4)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "hyena_recurrent"
