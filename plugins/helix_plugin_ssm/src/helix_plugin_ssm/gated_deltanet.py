"""Gated DeltaNet: linear attention whose state forgets by a gate and corrects what it holds for a key."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, uniform
from helix_core.ops import OpTable
from helix_plugin_ssm._step_size import step_size_bias

Array = Any


class GatedDeltaNetConfig(LayerConfig):
    """Options of Gated DeltaNet, as in Qwen3-Next."""

    n_heads: int = Field(4, gt=0, description="heads of the values and of the state, H")
    n_key_heads: int | None = Field(None, gt=0, description="heads of queries and keys, G; n_heads if absent")
    d_key: int | None = Field(None, gt=0, description="width of a head's queries and keys; d_model / n_heads if absent")
    d_value: int | None = Field(None, gt=0, description="width of a head's values; d_model / n_heads if absent")
    d_conv: int = Field(4, gt=0, description="taps of the short convolution")
    dt_min: float = Field(0.001, gt=0, description="smallest initial step size")
    dt_max: float = Field(0.1, gt=0, description="largest initial step size")
    norm_eps: float = Field(1e-6, gt=0, description="epsilon of the norm of each head")

    @model_validator(mode="after")
    def _divides(self) -> GatedDeltaNetConfig:
        if self.n_heads % self.key_heads:
            raise ValueError(f"n_heads = {self.n_heads} must be a multiple of n_key_heads = {self.key_heads}")
        return self

    @property
    def key_heads(self) -> int:
        """Heads of queries and keys."""
        return self.n_key_heads or self.n_heads

    @property
    def key_width(self) -> int:
        """Channels of a head's keys."""
        return self.d_key or max(1, self.d_model // self.n_heads)

    @property
    def value_width(self) -> int:
        """Channels of a head's values."""
        return self.d_value or max(1, self.d_model // self.n_heads)


class GatedDeltaNet(Layer[GatedDeltaNetConfig]):
    """in_proj -> short convolution + SiLU -> gated delta rule -> norm of each head -> gate -> out_proj.

        [q; k; v; z] = W_qkvz x,  [b; a] = W_ba x,  [q; k; v] = silu(conv([q; k; v]))
        q_t = q_t / (|q_t| sqrt(d_k)),  k_t = k_t / |k_t|
        α_t = exp(-exp(A_log) softplus(a_t + dt_bias)),  β_t = sigmoid(b_t)
        S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,  o_t = S_tᵀ q_t
        y_t = W_out (rms_norm(o_t) silu(z_t))

    The rows of W_qkvz and W_ba go by key head: q, k, then v and z of the value heads that share them; b, then a.
    State: conv (B, K-1, 2 G d_k + H d_v), the last inputs of the convolution; delta (B, H, d_k, d_v), S.
    Source: Yang, Kautz and Hatamizadeh, Gated Delta Networks: Improving Mamba2 with Delta Rule, 2024. Parameter names
    and layout are those of Qwen3-Next in Hugging Face transformers.

    >>> from helix_core import create
    >>> layer = create("layer", "gated_deltanet", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (21784, 6400)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        D, H, K, V = c.d_model, c.n_heads, c.key_heads * c.key_width, c.n_heads * c.value_width
        return {
            "in_proj_qkvz.weight": ParamSpec((2 * K + 2 * V, D), fan_in()),
            "in_proj_ba.weight": ParamSpec((2 * H, D), fan_in()),
            "conv1d.weight": ParamSpec((2 * K + V, c.d_conv), uniform(c.d_conv**-0.5)),
            "dt_bias": ParamSpec((H,), step_size_bias(c.dt_min, c.dt_max), weight_decay=False),
            "A_log": ParamSpec((H,), lambda rng, shape: np.log(rng.uniform(0.01, 16.0, shape)), weight_decay=False),
            "norm.weight": ParamSpec((c.value_width,), constant(1.0), weight_decay=False),
            "out_proj.weight": ParamSpec((D, V), fan_in(), residual=True),
        }

    def mixing_flops(self, length: int) -> float:
        c = self.config
        return 7 * c.n_heads * c.key_width * c.value_width

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        width = 2 * c.key_heads * c.key_width + c.n_heads * c.value_width
        return {
            "conv": F.zeros(batch, c.d_conv - 1, width),
            "delta": F.zeros(batch, c.n_heads, c.key_width, c.value_width),
        }

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
        c, xp = self.config, F.xp
        batch, length, _ = x.shape
        G, H, K, V = c.key_heads, c.n_heads, c.key_width, c.value_width
        shared = H // G
        before = state or {"conv": None, "delta": None}

        def flat(a: Array) -> Array:
            return xp.reshape(a, (batch, length, -1))

        qkvz = xp.reshape(F.linear(x, p["in_proj_qkvz.weight"]), (batch, length, G, 2 * K + 2 * shared * V))
        ba = xp.reshape(F.linear(x, p["in_proj_ba.weight"]), (batch, length, G, 2 * shared))
        z = xp.reshape(qkvz[..., 2 * K + shared * V :], (batch, length, H, V))
        b, a = flat(ba[..., :shared]), flat(ba[..., shared:])
        qkv, conv = F.causal_conv1d(
            xp.concat(
                [flat(qkvz[..., :K]), flat(qkvz[..., K : 2 * K]), flat(qkvz[..., 2 * K : 2 * K + shared * V])], axis=-1
            ),
            p["conv1d.weight"],
            None,
            initial_state=before["conv"],
            reset=reset,
            lengths=lengths,
            activation="silu",
        )
        o, delta = F.gated_delta_rule(
            _unit(xp, xp.reshape(qkv[..., : G * K], (batch, length, G, K))),
            _unit(xp, xp.reshape(qkv[..., G * K : 2 * G * K], (batch, length, G, K))),
            xp.reshape(qkv[..., 2 * G * K :], (batch, length, H, V)),
            log_decay=-xp.exp(p["A_log"]) * F.softplus(a + p["dt_bias"]),
            beta=F.sigmoid(b),
            initial_state=before["delta"],
            reset=reset,
            lengths=lengths,
            scale=K**-0.5,
        )
        o = F.rms_norm(o, p["norm.weight"], eps=c.norm_eps) * F.silu(z)
        y = F.linear(flat(o), p["out_proj.weight"])
        return y, None if state is None else {"conv": conv, "delta": delta}


def _unit(xp: Any, a: Array) -> Array:
    """Vectors of length 1, but for those near 0."""
    return a / xp.sqrt(xp.sum(a * a, axis=-1, keepdims=True) + 1e-6)
