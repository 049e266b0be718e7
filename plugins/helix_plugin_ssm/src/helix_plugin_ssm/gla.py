"""GLA: gated linear attention, whose state decays by a gate for each key that depends on the input."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, uniform
from helix_core.ops import OpTable

Array = Any


class GLAConfig(LayerConfig):
    """Options of gated linear attention; the defaults are the paper's."""

    n_heads: int = Field(4, gt=0, description="heads, H")
    expand_k: float = Field(0.5, gt=0, description="width of the keys over d_model")
    expand_v: float = Field(1.0, gt=0, description="width of the values over d_model")
    gate_rank: int = Field(16, gt=0, description="rank of the map from the input to the gate")
    temperature: float = Field(16.0, gt=0, description="τ: the gate is sigmoid(...)^(1/τ), so that it starts near 1")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the norm of each head")

    @model_validator(mode="after")
    def _divides(self) -> GLAConfig:
        for name in ("expand_k", "expand_v"):
            if int(getattr(self, name) * self.d_model) % self.n_heads or getattr(self, name) * self.d_model < 1:
                raise ValueError(f"{name} * d_model must be a multiple of n_heads = {self.n_heads}")
        return self

    @property
    def d_key(self) -> int:
        """Width of a head's queries and keys."""
        return int(self.expand_k * self.d_model) // self.n_heads

    @property
    def d_value(self) -> int:
        """Width of a head's values."""
        return int(self.expand_v * self.d_model) // self.n_heads


class GLA(Layer[GLAConfig]):
    """Gated linear attention with a norm of each head and a swish gate.

        q_t = W_q x_t / sqrt(d_k),  k_t = W_k x_t,  v_t = W_v x_t
        α_t = sigmoid(W_2 W_1 x_t + b)^(1/τ), one number for each key
        S_t = diag(α_t) S_{t-1} + k_t v_tᵀ,  o_t = S_tᵀ q_t
        y_t = W_o (rms_norm(o_t) swish(W_r x_t + b_r))

    State: attention (B, H, d_k, d_v), S.
    Source: Yang, Wang, Shen, Panda and Kim, Gated Linear Attention Transformers with Hardware-Efficient Training,
    2023. The norm is RMS norm, as in the authors' code, where the paper writes LayerNorm.

    >>> from helix_core import create
    >>> layer = create("layer", "gla", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (18032, 2048)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        D, K, V = c.d_model, c.n_heads * c.d_key, c.n_heads * c.d_value
        return {
            "q_proj.weight": ParamSpec((K, D), fan_in()),
            "k_proj.weight": ParamSpec((K, D), fan_in()),
            "v_proj.weight": ParamSpec((V, D), fan_in()),
            "gk_proj.0.weight": ParamSpec((c.gate_rank, D), fan_in()),
            "gk_proj.1.weight": ParamSpec((K, c.gate_rank), fan_in()),
            "gk_proj.1.bias": ParamSpec((K,), uniform(c.gate_rank**-0.5), weight_decay=False),
            "g_proj.weight": ParamSpec((V, D), fan_in()),
            "g_proj.bias": ParamSpec((V,), constant(0.0), weight_decay=False),
            "g_norm.weight": ParamSpec((c.d_value,), constant(1.0), weight_decay=False),
            "o_proj.weight": ParamSpec((D, V), fan_in(), residual=True),
        }

    def mixing_flops(self, length: int) -> float:
        c = self.config
        return 5 * c.n_heads * c.d_key * c.d_value

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        return {"attention": F.zeros(batch, c.n_heads, c.d_key, c.d_value)}

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
        H, K, V = c.n_heads, c.d_key, c.d_value
        gate = F.linear(F.linear(x, p["gk_proj.0.weight"]), p["gk_proj.1.weight"], p["gk_proj.1.bias"])
        o, S = F.gated_linear_attention(
            xp.reshape(F.linear(x, p["q_proj.weight"]), (batch, length, H, K)),
            xp.reshape(F.linear(x, p["k_proj.weight"]), (batch, length, H, K)),
            xp.reshape(F.linear(x, p["v_proj.weight"]), (batch, length, H, V)),
            # log sigmoid(g) = -softplus(-g), which does not underflow.
            log_decay=xp.reshape(F.softplus(-gate), (batch, length, H, K)) * (-1 / c.temperature),
            initial_state=None if state is None else state["attention"],
            reset=reset,
            lengths=lengths,
            scale=K**-0.5,
        )
        o = xp.reshape(F.rms_norm(o, p["g_norm.weight"], eps=c.norm_eps), (batch, length, H * V))
        gate = F.linear(x, p["g_proj.weight"], p["g_proj.bias"])
        y = F.linear(F.swiglu(gate, o), p["o_proj.weight"])
        return y, None if state is None else {"attention": S}
