"""minGRU: a gated recurrent unit whose gate depends on the input alone, so that it trains in parallel."""

from __future__ import annotations

from typing import Any, ClassVar

from helix_core.ops import OpTable
from helix_plugin_ssm._gated_recurrence import MinimalConfig, MinimalUnit

Array = Any


class MinGRUConfig(MinimalConfig):
    """Options of minGRU."""


class MinGRU(MinimalUnit):
    """The GRU without its dependence on the state: a linear recurrence.

        z_t = sigmoid(W_z x_t + b_z)
        h_t = (1 - z_t) h_{t-1} + z_t g(W_h x_t + b_h),  g(x) = x + 1/2 for x > 0, else sigmoid(x)
        y_t = W_out h_t

    The linear scan is stable as it stands, so the paper's logarithmic form is not needed: the same values.
    State: h (B, E).
    Source: Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, Were RNNs All We Needed?, 2024.

    >>> from helix_core import create
    >>> layer = create("layer", "mingru", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (12416, 256)
    """

    gates: ClassVar[dict[str, int]] = {"to_gate": -1}

    def coefficients(self, F: OpTable, gates: list[Array]) -> tuple[Array, Array]:
        # sigmoid(-x) is 1 - sigmoid(x) without cancellation.
        return F.sigmoid(-gates[0]), F.sigmoid(gates[0])
