"""S4D: a diagonal, time-invariant state-space block."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, normal, values
from helix_core.ops import OpTable
from helix_core.ops.long_conv import long_conv_flops

Array = Any


class S4DConfig(LayerConfig):
    """Options of the S4D block; the defaults are the paper's."""

    d_state: int = Field(64, gt=1, description="N: N/2 conjugate pairs, or N real modes for init = real")
    init: Literal["lin", "inv", "real"] = Field("lin", description="S4D-Lin, S4D-Inv or S4D-Real")
    discretization: Literal["zoh", "bilinear"] = Field("zoh", description="zero-order hold or bilinear (Tustin)")
    dt_min: float = Field(0.001, gt=0, description="smallest initial step size")
    dt_max: float = Field(0.1, gt=0, description="largest initial step size")
    lr_scale: float = Field(0.25, gt=0, description="factor on the learning rate of Δ and A, which train unstably")

    @field_validator("d_state")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even: states come in conjugate pairs")
        return value

    @property
    def modes(self) -> int:
        """Modes of a channel: complex ones stand for a conjugate pair."""
        return self.d_state if self.init == "real" else self.d_state // 2


class S4D(Layer[S4DConfig]):
    """Diagonal SSM per channel -> skip -> GELU -> linear -> GLU.

        h_t = Ā h_{t-1} + B̄ u_t,  y_t = 2 Re(C h_t) + D u_t
        zoh:      Ā = exp(ΔA),                B̄ = (Ā - 1) / A
        bilinear: Ā = (1 + ΔA/2)/(1 - ΔA/2),  B̄ = Δ / (1 - ΔA/2)
        lin: A_n = -1/2 + iπn;  inv: A_n = -1/2 + i N/π (N/(2n+1) - 1);  real: A_n = -(n+1)

    Without state or resets it is one long convolution with the filter 2 Re Σ C B̄ Āˡ; otherwise the recurrence runs.
    State: ssm (B, D, modes, 2), h without its factor B̄.
    Source: Gu, Gupta, Goel and Ré, On the Parameterization and Initialization of Diagonal State Space Models, 2022.

    >>> from helix_core import create
    >>> layer = create("layer", "s4d", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (16640, 16384)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        D, N = c.d_model, c.modes
        slow = functools.partial(ParamSpec, weight_decay=False, lr_scale=c.lr_scale)
        specs = {
            "log_dt": slow((D,), self._initial_log_dt),
            "A_log": slow((D, N), values(lambda: np.log(-self._initial_A()[0]))),
            "A_imag": slow((D, N), values(lambda: self._initial_A()[1])),
            "C": ParamSpec((D, N, 2), normal(math.sqrt(0.5)), weight_decay=False),
            "D": ParamSpec((D,), normal(1.0), weight_decay=False),
            "out_proj.weight": ParamSpec((2 * D, D), fan_in(), residual=True),
            "out_proj.bias": ParamSpec((2 * D,), constant(0.0), weight_decay=False),
        }
        if c.init == "real":
            del specs["A_imag"]
            specs["C"] = ParamSpec((D, N), normal(1.0), weight_decay=False)
        return specs

    def _initial_A(self) -> tuple[np.ndarray, np.ndarray]:
        c = self.config
        n = np.arange(c.modes, dtype=np.float64)
        if c.init == "real":
            return -(n + 1), np.zeros_like(n)
        half = np.full_like(n, -0.5)
        if c.init == "lin":
            return half, math.pi * n
        return half, c.d_state / math.pi * (c.d_state / (2 * n + 1) - 1)

    def _initial_log_dt(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(math.log(self.config.dt_min), math.log(self.config.dt_max), shape)

    def discretize(self, F: OpTable, p: Params) -> tuple[Array, Array]:
        """log Ā and C B̄, both (D, modes, 2)."""
        xp = F.xp
        A_re = -xp.exp(p["A_log"])
        A_im = p["A_imag"] if "A_imag" in p else xp.zeros_like(A_re)
        dt = xp.exp(p["log_dt"])[:, None]
        re, im = dt * A_re, dt * A_im
        if self.config.discretization == "zoh":
            log_re, log_im = re, im
            # exp(z) - 1 without cancellation, then (Ā - 1) / A.
            half_sine = xp.sin(0.5 * im)
            num_re = xp.expm1(re) * xp.cos(im) - 2 * half_sine * half_sine
            num_im = xp.exp(re) * xp.sin(im)
            size = A_re * A_re + A_im * A_im
            B_re, B_im = (num_re * A_re + num_im * A_im) / size, (num_im * A_re - num_re * A_im) / size
        else:
            x, y = 0.5 * re, 0.5 * im
            size = (1 - x) * (1 - x) + y * y
            # |1+z|² / |1-z|² = 1 + 4x/|1-z|², and x < 0. Bounded below: a real mode passes Ā = 0 as Δ grows, where
            # the logarithm would be infinite and Ā⁰ not a number.
            log_re = 0.5 * xp.log1p(xp.clip(4 * x / size, -1 + 1e-6, None))
            log_im = xp.atan2(y, 1 + x) + xp.atan2(y, 1 - x)
            B_re, B_im = dt * (1 - x) / size, dt * y / size
        if "A_imag" in p:
            C_re, C_im = p["C"][..., 0], p["C"][..., 1]
        else:
            C_re, C_im = p["C"], xp.zeros_like(p["C"])
        c = xp.stack([C_re * B_re - C_im * B_im, C_re * B_im + C_im * B_re], axis=-1)
        return xp.stack([log_re, log_im], axis=-1), c

    def mixing_flops(self, length: int) -> float:
        return self.config.d_model * long_conv_flops(length, length) / length

    def step_mixing_flops(self, length: int) -> float:
        return 11 * self.config.d_model * self.config.modes

    def init_state(self, F: OpTable, batch: int) -> State:
        return {"ssm": F.zeros(batch, self.config.d_model, self.config.modes, 2)}

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
        log_a, c = self.discretize(F, p)
        after = None
        if state is None and reset is None:
            y = F.long_conv(x, F.diagonal_ssm_filter(log_a, c, length=x.shape[1]))
        else:
            initial = None if state is None else state["ssm"]
            y, last = F.diagonal_ssm(x, log_a, c, initial_state=initial, reset=reset, lengths=lengths)
            after = None if state is None else {"ssm": last}
        y = F.gelu(y + p["D"] * x)
        y = F.linear(y, p["out_proj.weight"], p["out_proj.bias"])
        width = self.config.d_model
        return y[..., :width] * F.sigmoid(y[..., width:]), after
