"""RetNet: multi-scale retention, linear attention with rotary positions and a fixed decay for each head."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.ops import OpTable
from helix_plugin_ssm._rotary import angles, frequencies, rotate

Array = Any


class RetNetConfig(LayerConfig):
    """Options of multi-scale retention; the defaults are the paper's."""

    n_heads: int | None = Field(None, gt=0, description="heads, H; default: one for every 256 of d_model, at least one")
    expand: float = Field(2.0, gt=0, description="width of the values over d_model")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the group norm")

    @model_validator(mode="after")
    def _divides(self) -> RetNetConfig:
        if self.d_model % (2 * self.heads):
            raise ValueError(f"d_model must be a multiple of twice the number of heads, {self.heads}")
        if int(self.expand * self.d_model) % self.heads:
            raise ValueError(f"expand * d_model must be a multiple of the number of heads, {self.heads}")
        return self

    @property
    def heads(self) -> int:
        """The number of heads; one for each 256 channels by default."""
        return max(1, self.d_model // 256) if self.n_heads is None else self.n_heads

    @property
    def d_key(self) -> int:
        """Width of a head's queries and keys."""
        return self.d_model // self.heads

    @property
    def d_value(self) -> int:
        """Width of a head's values."""
        return int(self.expand * self.d_model) // self.heads


class RetNet(Layer[RetNetConfig]):
    """Multi-scale retention with a group norm and a swish gate.

        q_t = R^t W_q x_t,  k_t = R^t W_k x_t / sqrt(d_k),  v_t = W_v x_t
        S_t = γ S_{t-1} + k_t v_tᵀ,  o_t = S_tᵀ q_t,  γ_h = 1 - 2^(-5-h) for head h
        y_t = W_o (group_norm(o_t) swish(W_g x_t))

    R turns pairs of channels by fixed angles, 1 to 1/10000 radians a step: with the decay, the paper's xPos. The
    parallel, the chunkwise and the recurrent form of the paper are one op and its state.
    State: retention (B, H, d_k, d_v), S turned so that its last step stands at position 0: it holds no position, and
    no position grows without bound.
    Source: Sun, Dong, Huang, Ma, Xia, Xue, Wang and Wei, Retentive Network: A Successor to Transformer for Large
    Language Models, 2023.

    >>> from helix_core import create
    >>> layer = create("layer", "retnet", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (33024, 32768)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        D, V = c.d_model, c.heads * c.d_value
        return {
            "q_proj.weight": ParamSpec((D, D), fan_in()),
            "k_proj.weight": ParamSpec((D, D), fan_in()),
            "v_proj.weight": ParamSpec((V, D), fan_in()),
            "g_proj.weight": ParamSpec((V, D), fan_in()),
            "group_norm.weight": ParamSpec((V,), constant(1.0), weight_decay=False),
            "group_norm.bias": ParamSpec((V,), constant(0.0), weight_decay=False),
            "out_proj.weight": ParamSpec((D, V), fan_in(), residual=True),
        }

    def mixing_flops(self, length: int) -> float:
        c = self.config
        return 5 * c.heads * c.d_key * c.d_value

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        return {"retention": F.zeros(batch, c.heads, c.d_key, c.d_value)}

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
        H, K, V = c.heads, c.d_key, c.d_value
        cos, sin = angles(F, length, K)

        def turned(weight: Array) -> Array:
            heads = xp.reshape(F.linear(x, weight), (batch, length, H, K))
            return rotate(xp, heads, cos[:, None, :], sin[:, None, :])

        q, k = turned(p["q_proj.weight"]), turned(p["k_proj.weight"])
        v = xp.reshape(F.linear(x, p["v_proj.weight"]), (batch, length, H, V))
        log_decay = F.asarray(np.log1p(-(2.0 ** -(5.0 + np.arange(H))))[None, None, :, None])
        before = None if state is None else self._turn(F, state["retention"], F.asarray(np.full(batch, -1.0)))
        o, S = F.gated_linear_attention(
            q, k, v, log_decay=log_decay, initial_state=before, reset=reset, lengths=lengths, scale=K**-0.5
        )
        after = None
        if state is not None:
            ends = xp.astype(lengths, S.dtype) if lengths is not None else F.asarray(np.full(batch, float(length)))
            after = {"retention": self._turn(F, S, 1.0 - ends)}
        o = F.layer_norm(o, F.asarray(np.ones(V)), None, eps=c.norm_eps)
        o = xp.reshape(o, (batch, length, H * V)) * p["group_norm.weight"] + p["group_norm.bias"]
        y = F.linear(F.swiglu(F.linear(x, p["g_proj.weight"]), o), p["out_proj.weight"])
        return y, after

    def _turn(self, F: OpTable, S: Array, position: Array) -> Array:
        """S (B, H, K, V) with its keys turned by `position` (B,) steps."""
        xp = F.xp
        angle = position[:, None] * F.asarray(frequencies(self.config.d_key))
        cos, sin = xp.cos(angle)[:, None, :, None], xp.sin(angle)[:, None, :, None]
        half = self.config.d_key // 2
        re, im = S[:, :, :half, :], S[:, :, half:, :]
        return xp.concat([re * cos - im * sin, re * sin + im * cos], axis=2)
