"""State-space layers: (B, L, D) -> (B, L, D).

B sequences, L positions, D channels.
"""

from __future__ import annotations

from helix_plugin_torch.nn._layer import HelixLayer


class Mamba(HelixLayer):
    """Selective state-space block: (B, L, D) -> (B, L, D); parameters are named as in mamba-ssm.

    Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.Mamba(16, d_state=4)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "mamba"


class Mamba2(HelixLayer):
    """State-space duality block, one decay a head: (B, L, D) -> (B, L, D).

    Source: Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
    Space Duality, 2024.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.Mamba2(16, d_state=8, head_dim=8)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "mamba2"


class Mamba3(HelixLayer):
    """Trapezoidal state space with a turning state, SISO or MIMO: (B, L, D) -> (B, L, D).

    Source: Lahoti et al., Mamba-3: Improved Sequence Modeling using State Space Principles, 2026.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.Mamba3(16, d_state=8, head_dim=8)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "mamba3"


class S4(HelixLayer):
    """Structured state-space block, diagonal plus low rank from HiPPO: (B, L, D) -> (B, L, D).

    Source: Gu, Goel and Ré, Efficiently Modeling Long Sequences with Structured State Spaces, 2022.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.S4(16, d_state=8)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "s4"


class S4D(HelixLayer):
    """Diagonal state-space block, the same at all times: (B, L, D) -> (B, L, D).

    Source: Gu, Gupta, Goel and Ré, On the Parameterization and Initialization of Diagonal State Space Models, 2022.

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> nn.S4D(16, d_state=8)(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer = "s4d"
