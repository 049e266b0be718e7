"""Mamba-2: a state-space block whose decay is one number per head, so that it is computed by matrix products."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.layer import Layer, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, uniform
from helix_core.ops import OpTable
from helix_plugin_ssm._heads import HeadsConfig
from helix_plugin_ssm._parts import linear_parts
from helix_plugin_ssm._step_size import step_size_bias

Array = Any


class Mamba2Config(HeadsConfig):
    """Options of the Mamba-2 block; the defaults are the paper's."""

    d_state: int = Field(128, gt=0, description="states per channel, N")
    d_conv: int = Field(4, gt=0, description="taps of the short convolution, K")
    bias: bool = Field(False, description="biases of in_proj and out_proj")
    conv_bias: bool = Field(True, description="a bias of the short convolution")
    A_min: float = Field(1.0, gt=0, description="smallest initial -A")
    A_max: float = Field(16.0, gt=0, description="largest initial -A")
    time_step_limit: tuple[float, float] = Field((0.0, math.inf), description="bounds of the step size at any time")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the gated norm")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.time_step_limit[0] <= self.time_step_limit[1]:
            raise ValueError("time_step_limit must be (low, high) with 0 <= low <= high")
        return self


class Mamba2(Layer[Mamba2Config]):
    """in_proj -> causal depthwise conv + SiLU -> state-space duality -> gated RMS norm -> out_proj.

        [z; x; B; C; dt] = W_in u
        [x; B; C] = silu(conv([x; B; C]))
        Δ   = softplus(dt + b_dt), within time_step_limit
        S_t = exp(Δ_t A) S_{t-1} + Δ_t B_t x_tᵀ,   A = -exp(A_log), one number for each head of P channels
        y_t = S_tᵀ C_t + D x_t
        out = W_out rms_norm(y silu(z)), the norm over the channels of each group

    State: conv (B, K-1, E) and conv_bc (B, K-1, 2GN), the last inputs of the convolution; ssm (B, H, N, P), S.
    Source: Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
    Space Duality, 2024. Parameter names and order are those of the authors' code and of Hugging Face.

    >>> from helix_core import create
    >>> layer = create("layer", "mamba2", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (43142, 70144)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        E, N, G, H, K, D = c.d_inner, c.d_state, c.n_groups, c.n_heads, c.d_conv, c.d_model
        mixed = E + 2 * G * N
        specs = {
            "in_proj.weight": ParamSpec((E + mixed + H, D), fan_in()),
            "conv1d.weight": ParamSpec((mixed, K), uniform(1 / math.sqrt(K))),
            "dt_bias": ParamSpec((H,), step_size_bias(c.dt_min, c.dt_max, c.dt_init_floor), weight_decay=False),
            "A_log": ParamSpec((H,), self._initial_A_log, weight_decay=False),
            "D": ParamSpec((H,), constant(1.0), weight_decay=False),
            "norm.weight": ParamSpec((E,), constant(1.0), weight_decay=False),
            "out_proj.weight": ParamSpec((D, E), fan_in(), residual=True),
        }
        if c.conv_bias:
            specs["conv1d.bias"] = ParamSpec((mixed,), uniform(1 / math.sqrt(K)), weight_decay=False)
        if c.bias:
            specs["in_proj.bias"] = ParamSpec((E + mixed + H,), constant(0.0), weight_decay=False)
            specs["out_proj.bias"] = ParamSpec((D,), constant(0.0), weight_decay=False)
        return specs

    def _initial_A_log(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.log(rng.uniform(self.config.A_min, self.config.A_max, shape))

    def mixing_flops(self, length: int) -> float:
        c = self.config
        return 5 * c.d_inner * c.d_state

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        return {
            "conv": F.zeros(batch, c.d_conv - 1, c.d_inner),
            "conv_bc": F.zeros(batch, c.d_conv - 1, 2 * c.n_groups * c.d_state),
            "ssm": F.zeros(batch, c.n_heads, c.d_state, c.head_dim),
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
        c = self.config
        E, N, G = c.d_inner, c.d_state, c.n_groups
        mixed = E + 2 * G * N
        batch, length, _ = x.shape
        before = state or {"conv": None, "conv_bc": None, "ssm": None}
        taps, taps_bias = p["conv1d.weight"], p.get("conv1d.bias")

        def convolve(a: Array, start: int, end: int, before: Array) -> tuple[Array, Array]:
            b = None if taps_bias is None else taps_bias[start:end]
            y, after = F.causal_conv1d(
                a, taps[start:end], b, initial_state=before, reset=reset, lengths=lengths, activation="silu"
            )
            return y, after

        sizes = (E, E, mixed - E, c.n_heads)
        z, u, bc, dt = linear_parts(F, x, p["in_proj.weight"], p.get("in_proj.bias"), sizes)
        u, conv = convolve(u, 0, E, before["conv"])
        bc, conv_bc = convolve(bc, E, mixed, before["conv_bc"])
        low, high = c.time_step_limit
        y, ssm = F.ssd(
            F.xp.reshape(u, (batch, length, c.n_heads, c.head_dim)),
            dt=dt,
            A=-F.xp.exp(p["A_log"]),
            B=F.xp.reshape(bc[..., : G * N], (batch, length, G, N)),
            C=F.xp.reshape(bc[..., G * N :], (batch, length, G, N)),
            D=p["D"],
            dt_bias=p["dt_bias"],
            initial_state=before["ssm"],
            reset=reset,
            lengths=lengths,
            dt_softplus=True,
            dt_min=low,
            dt_max=high,
        )
        y = self._norm(F, F.swiglu(z, F.xp.reshape(y, (batch, length, E))), p["norm.weight"])
        y = F.linear(y, p["out_proj.weight"], p.get("out_proj.bias"))
        return y, None if state is None else {"conv": conv, "conv_bc": conv_bc, "ssm": ssm}

    def _norm(self, F: OpTable, x: Array, weight: Array) -> Array:
        """RMS norm of each group of (B, L, E)."""
        G, eps = self.config.n_groups, self.config.norm_eps
        if G == 1:
            return F.rms_norm(x, weight, eps=eps)
        groups = F.xp.reshape(x, (*x.shape[:2], G, x.shape[2] // G))
        return F.xp.reshape(F.rms_norm(groups, F.asarray(np.ones(groups.shape[3])), eps=eps), x.shape) * weight
