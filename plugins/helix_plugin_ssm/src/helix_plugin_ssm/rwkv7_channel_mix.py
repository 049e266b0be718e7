"""RWKV-7's channel mix: a squared-ReLU network that also sees the step before."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, fan_in, values
from helix_core.ops import OpTable
from helix_plugin_ssm._token_shift import token_shift

Array = Any


class RWKV7ChannelMixConfig(LayerConfig):
    """Options of RWKV-7's channel mix; the default is the authors'."""

    expand: float = Field(4.0, gt=0, description="hidden width over d_model")

    @property
    def d_hidden(self) -> int:
        """Channels between the two projections."""
        return max(1, int(self.expand * self.d_model))


class RWKV7ChannelMix(Layer[RWKV7ChannelMixConfig]):
    """Token shift -> linear -> squared ReLU -> linear: the `mlp` of an RWKV-7 model.

        y_t = W_v relu(W_k (x_t + (x_{t-1} - x_t) x_k))²

    State: shift (B, 1, D), the last input.
    Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025. Parameter names are those of
    BlinkDL/RWKV-LM; x_k starts as in its first layer.

    >>> from helix_core import create
    >>> layer = create("layer", "rwkv7_channel_mix", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (32832, 256)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        D, H = self.config.d_model, self.config.d_hidden
        return {
            "x_k": ParamSpec((D,), values(lambda: 1 - np.arange(D) / D), weight_decay=False),
            "key.weight": ParamSpec((H, D), fan_in(0.5)),
            "value.weight": ParamSpec((D, H), fan_in(), residual=True),
        }

    def mixing_flops(self, length: int) -> float:
        return 4.0 * self.config.d_model  # the token shift, a convolution of two taps

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
        mixed, shift = token_shift(F, x, p["x_k"], before, reset, lengths)
        hidden = F.linear(mixed, p["key.weight"])
        hidden = F.xp.clip(hidden, 0, None)
        y = F.linear(hidden * hidden, p["value.weight"])
        return y, None if state is None else {"shift": shift}
