"""RWKV-4's time mix: attention whose weights fade with distance, as a recurrence of two numbers per channel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, fan_in, values
from helix_core.ops import OpTable
from helix_core.ops.wkv4 import EMPTY
from helix_plugin_ssm._token_shift import token_shift

Array = Any


class RWKV4Config(LayerConfig):
    """Options of RWKV-4's time mix."""

    d_attention: int | None = Field(None, gt=0, description="channels of the attention; d_model if absent")

    @property
    def channels(self) -> int:
        """Channels of the recurrence."""
        return self.d_attention or self.d_model


class RWKV4(Layer[RWKV4Config]):
    """Token shift -> key, value and receptance -> the wkv4 op -> gate -> output.

        x^c_t = time_mix_c x_t + (1 - time_mix_c) x_{t-1}  for c in key, value, receptance
        k = W_k x^key,  v = W_v x^value,  r = sigmoid(W_r x^receptance)
        wkv_t = (Σ_{s<t} e^(-(t-1-s) e^time_decay + k_s) v_s + e^(time_first + k_t) v_t) / (the same without v)
        y_t = W_o (r_t wkv_t)

    State: shift (B, 1, D), the last input; wkv (B, 2, A), the average of the values so far and the logarithm of their
    weight: what the authors keep as numerator, denominator and largest exponent.
    Source: Peng et al., RWKV: Reinventing RNNs for the Transformer Era, 2023. Parameter names are those of Hugging
    Face's RWKV, without axes of size 1; mixes and decays start as in the authors' first layer.

    >>> from helix_core import create
    >>> layer = create("layer", "rwkv4", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (16704, 768)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        D, A = self.config.d_model, self.config.channels
        place = values(lambda: np.arange(D) / D)
        speed = values(lambda: 8 * np.linspace(0, 1, A) ** 0.7 - 5)
        zigzag = values(lambda: math.log(0.3) + 0.5 * ((np.arange(A) + 1) % 3 - 1))
        return {
            "time_decay": ParamSpec((A,), speed, weight_decay=False),
            "time_first": ParamSpec((A,), zigzag, weight_decay=False),
            "time_mix_key": ParamSpec((D,), place, weight_decay=False),
            "time_mix_value": ParamSpec((D,), place, weight_decay=False),
            "time_mix_receptance": ParamSpec((D,), values(lambda: np.sqrt(np.arange(D) / D)), weight_decay=False),
            "key.weight": ParamSpec((A, D), fan_in()),
            "value.weight": ParamSpec((A, D), fan_in()),
            "receptance.weight": ParamSpec((A, D), fan_in()),
            "output.weight": ParamSpec((D, A), fan_in(), residual=True),
        }

    def init_state(self, F: OpTable, batch: int) -> State:
        empty = F.zeros(batch, 1, self.config.channels)
        return {
            "shift": F.zeros(batch, 1, self.config.d_model),
            "wkv": F.xp.concat([empty, empty + EMPTY], axis=1),
        }

    def mixing_flops(self, length: int) -> float:
        """Of the recurrence and of three token shifts, convolutions of two taps."""
        return 19.0 * self.config.channels + 12.0 * self.config.d_model

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
        before = state or {"shift": None, "wkv": None}

        def mixed(name: str) -> tuple[Array, Array]:
            return token_shift(F, x, 1 - p[f"time_mix_{name}"], before["shift"], reset, lengths)

        x_k, shift = mixed("key")
        k = F.linear(x_k, p["key.weight"])
        v = F.linear(mixed("value")[0], p["value.weight"])
        r = F.sigmoid(F.linear(mixed("receptance")[0], p["receptance.weight"]))
        y, wkv = F.wkv4(
            k,
            v,
            -F.xp.exp(p["time_decay"]),
            bonus=p["time_first"],
            initial_state=before["wkv"],
            reset=reset,
            lengths=lengths,
        )
        y = F.linear(r * y, p["output.weight"])
        return y, None if state is None else {"shift": shift, "wkv": wkv}
