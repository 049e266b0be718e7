"""RWKV-4's channel mix: a gated squared-ReLU network that also sees the step before."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, fan_in, values
from helix_core.ops import OpTable
from helix_plugin_ssm._token_shift import token_shift

Array = Any


class RWKV4ChannelMixConfig(LayerConfig):
    """Options of RWKV-4's channel mix; the default is the paper's."""

    expand: float = Field(4.0, gt=0, description="hidden width over d_model")

    @property
    def d_hidden(self) -> int:
        """Channels between the two projections."""
        return max(1, int(self.expand * self.d_model))


class RWKV4ChannelMix(Layer[RWKV4ChannelMixConfig]):
    """Token shift -> linear -> squared ReLU -> linear -> gate: the `mlp` of an RWKV-4 model.

        x^c_t = time_mix_c x_t + (1 - time_mix_c) x_{t-1}  for c in key, receptance
        y_t = sigmoid(W_r x^receptance_t) W_v relu(W_k x^key_t)²

    State: shift (B, 1, D), the last input.
    Source: Peng et al., RWKV: Reinventing RNNs for the Transformer Era, 2023. Parameter names are those of Hugging
    Face's RWKV; mixes start as in the authors' first layer.

    >>> from helix_core import create
    >>> layer = create("layer", "rwkv4_channel_mix", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (36992, 256)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        D, H = self.config.d_model, self.config.d_hidden
        place = values(lambda: np.arange(D) / D)
        return {
            "time_mix_key": ParamSpec((D,), place, weight_decay=False),
            "time_mix_receptance": ParamSpec((D,), place, weight_decay=False),
            "key.weight": ParamSpec((H, D), fan_in()),
            "receptance.weight": ParamSpec((D, D), fan_in()),
            "value.weight": ParamSpec((D, H), fan_in(), residual=True),
        }

    def mixing_flops(self, length: int) -> float:
        return 8.0 * self.config.d_model  # two token shifts, convolutions of two taps

    def init_state(self, F: OpTable, batch: int) -> State:
        return {"shift": F.zeros(batch, 1, self.config.d_model)}

    def apply(
        self,
        F: OpTable,
        p: Params,
        x: Array,
        *,
        state: State | None = None,
        reset: Array | None = None,
        lengths: Array | None = None,
    ) -> tuple[Array, State | None]:
        before = None if state is None else state["shift"]
        x_k, shift = token_shift(F, x, 1 - p["time_mix_key"], before, reset, lengths)
        x_r, _ = token_shift(F, x, 1 - p["time_mix_receptance"], before, reset, lengths)
        hidden = F.xp.clip(F.linear(x_k, p["key.weight"]), 0, None)
        y = F.sigmoid(F.linear(x_r, p["receptance.weight"])) * F.linear(hidden * hidden, p["value.weight"])
        return y, None if state is None else {"shift": shift}
