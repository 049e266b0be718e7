"""Mamba: a state-space block whose step size, input and output maps depend on the input."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, uniform, values
from helix_core.ops import OpTable
from helix_plugin_ssm._parts import linear_parts
from helix_plugin_ssm._step_size import step_size_bias

Array = Any


class MambaConfig(LayerConfig):
    """Options of the Mamba block; the defaults are the paper's."""

    d_state: int = Field(16, gt=0, description="states per channel, N")
    d_conv: int = Field(4, gt=0, description="taps of the short convolution, K")
    expand: int = Field(2, gt=0, description="inner width over d_model, E = expand * d_model")
    dt_rank: int | Literal["auto"] = Field("auto", description="rank of the step-size map, R; auto: d_model/16, up")
    bias: bool = Field(False, description="biases of in_proj and out_proj")
    conv_bias: bool = Field(True, description="a bias of the short convolution")
    bcdt_norm_eps: float | None = Field(
        None, gt=0, description="epsilon of an RMS norm, without weights, of B, C and the step sizes (Falcon Mamba)"
    )
    dt_min: float = Field(0.001, gt=0, description="smallest initial step size")
    dt_max: float = Field(0.1, gt=0, description="largest initial step size")
    dt_init_floor: float = Field(1e-4, gt=0, description="floor of the initial step sizes")

    @property
    def d_inner(self) -> int:
        """Channels of the scan."""
        return self.expand * self.d_model

    @property
    def rank(self) -> int:
        """Channels from which step sizes are made."""
        return math.ceil(self.d_model / 16) if self.dt_rank == "auto" else self.dt_rank


class Mamba(Layer[MambaConfig]):
    """in_proj -> causal depthwise conv + SiLU -> selective scan -> gate -> out_proj.

        [u; z] = W_in x
        u      = silu(conv(u))
        Δ      = softplus(W_dt (W_x u)[:R] + b_dt),   B, C = (W_x u)[R:]
        h_t    = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,    A = -exp(A_log)
        y      = W_out ((C_t h_t + D u_t) silu(z_t))

    State: conv (B, K-1, E), the last inputs of the convolution; ssm (B, E, N), h.
    Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023. Parameter names are
    those of the authors' code and of Hugging Face. With `bcdt_norm_eps`, B, C and (W_x u)[:R]
    pass an RMS norm each: Zuo et al., Falcon Mamba: The First Competitive Attention-free 7B Language Model, 2024.

    >>> from helix_core import create
    >>> layer = create("layer", "mamba", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (32640, 9728)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        E, N, R, K, D = c.d_inner, c.d_state, c.rank, c.d_conv, c.d_model
        specs = {
            "in_proj.weight": ParamSpec((2 * E, D), fan_in()),
            "conv1d.weight": ParamSpec((E, K), uniform(1 / math.sqrt(K))),
            "x_proj.weight": ParamSpec((R + 2 * N, E), fan_in()),
            "dt_proj.weight": ParamSpec((E, R), uniform(R**-0.5)),
            "dt_proj.bias": ParamSpec((E,), step_size_bias(c.dt_min, c.dt_max, c.dt_init_floor), weight_decay=False),
            "A_log": ParamSpec(
                (E, N), values(lambda: np.log(np.arange(1, N + 1, dtype=np.float64))), weight_decay=False
            ),
            "D": ParamSpec((E,), constant(1.0), weight_decay=False),
            "out_proj.weight": ParamSpec((D, E), fan_in(), residual=True),
        }
        if c.conv_bias:
            specs["conv1d.bias"] = ParamSpec((E,), uniform(1 / math.sqrt(K)), weight_decay=False)
        if c.bias:
            specs["in_proj.bias"] = ParamSpec((2 * E,), constant(0.0), weight_decay=False)
            specs["out_proj.bias"] = ParamSpec((D,), constant(0.0), weight_decay=False)
        return specs

    def mixing_flops(self, length: int) -> float:
        c = self.config
        return 7 * c.d_inner * c.d_state

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        return {
            "conv": F.zeros(batch, c.d_conv - 1, c.d_inner),
            "ssm": F.zeros(batch, c.d_inner, c.d_state),
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
        N, R = c.d_state, c.rank
        before = state or {"conv": None, "ssm": None}
        u, z = linear_parts(F, x, p["in_proj.weight"], p.get("in_proj.bias"), (c.d_inner, c.d_inner))
        u, conv = F.causal_conv1d(
            u,
            p["conv1d.weight"],
            p.get("conv1d.bias"),
            initial_state=before["conv"],
            reset=reset,
            lengths=lengths,
            activation="silu",
        )
        dt_bc = F.linear(u, p["x_proj.weight"])
        dt, B, C = dt_bc[..., :R], dt_bc[..., R : R + N], dt_bc[..., R + N :]
        if c.bcdt_norm_eps is not None:
            dt, B, C = (self._unit(F, part, c.bcdt_norm_eps) for part in (dt, B, C))
        y, ssm = F.selective_scan(
            u,
            delta=F.linear(dt, p["dt_proj.weight"]),
            A=-F.xp.exp(p["A_log"]),
            B=B,
            C=C,
            D=p["D"],
            z=z,
            delta_bias=p["dt_proj.bias"],
            initial_state=before["ssm"],
            reset=reset,
            lengths=lengths,
            delta_softplus=True,
        )
        y = F.linear(y, p["out_proj.weight"], p.get("out_proj.bias"))
        return y, None if state is None else {"conv": conv, "ssm": ssm}

    @staticmethod
    def _unit(F: OpTable, x: Array, eps: float) -> Array:
        """RMS norm without weights."""
        return F.rms_norm(x, F.asarray(np.ones(x.shape[-1])), eps=eps)
