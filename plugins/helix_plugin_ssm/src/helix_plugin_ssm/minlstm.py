"""minLSTM: a long short-term memory whose gates depend on the input alone, so that it trains in parallel."""

from __future__ import annotations

from typing import Any, ClassVar

from helix_core.ops import OpTable
from helix_plugin_ssm._gated_recurrence import MinimalConfig, MinimalUnit

Array = Any


class MinLSTMConfig(MinimalConfig):
    """Options of minLSTM."""


class MinLSTM(MinimalUnit):
    """The LSTM without its dependence on the state and without an output gate: a linear recurrence.

        f_t = sigmoid(W_f x_t + b_f),  i_t = sigmoid(W_i x_t + b_i)
        h_t = f_t / (f_t + i_t) h_{t-1} + i_t / (f_t + i_t) g(W_h x_t + b_h),  g as in minGRU
        y_t = W_out h_t

    State: h (B, E).
    Source: Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, Were RNNs All We Needed?, 2024.

    >>> from helix_core import create
    >>> layer = create("layer", "minlstm", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (16576, 256)
    """

    gates: ClassVar[dict[str, int]] = {"to_forget": 1, "to_input": -1}

    def coefficients(self, F: OpTable, gates: list[Array]) -> tuple[Array, Array]:
        # f / (f + i) = sigmoid(log f - log i), also where both underflow.
        difference = F.softplus(-gates[0]) - F.softplus(-gates[1])
        return F.sigmoid(-difference), F.sigmoid(difference)
