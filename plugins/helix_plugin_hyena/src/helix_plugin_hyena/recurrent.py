"""Hyena with filters that are recurrences: what a trained Hyena is distilled to for decoding in constant time."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from helix_core.kinds.layer import Array, Layer, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, normal, uniform
from helix_core.ops import OpTable
from helix_core.ops.long_conv import long_conv_flops
from helix_plugin_hyena.heads import OperatorConfig


class HyenaRecurrentConfig(OperatorConfig):
    """Options of the recurrent Hyena."""

    modes: int = Field(16, gt=0, description="damped waves of a filter: complex numbers of state for each channel")
    longest: float = Field(512.0, gt=1, description="longest memory that fresh filters start with, in steps")


class HyenaRecurrent(Layer[HyenaRecurrentConfig]):
    """The Hyena operator whose long filters are h_t = 2 Re Σ_n c_n a_n^t, with a skip D.

        [x_0; ...; x_{N-1}; v] = conv(W_in x + b_in)
        s_t = a s_{t-1} + (x_{N-i} v)_t,  v = 2 Re(c s) + D_i x_{N-i} v   for i = 1 .. N-1
        y = W_out (x_0 v) + b_out

    log a = -exp(filter.log_decay) + i filter.phase. `helix distill` writes it from a trained `hyena`; it trains too.
    With `outer_product`, each head's filter goes over the products of its keys and values, and x_0 are queries.
    State: short (B, K-1, (N+1) D), last inputs of the short convolution; long.i (B, D, modes, 2), of the i-th long one,
    D d_model / num_heads channels of it with `outer_product`.
    Source: Massaroli et al., Laughing Hyena Distillery: Extracting Compact Recurrences from Convolutions, 2023.

    >>> from helix_core import create
    >>> layer = create("layer", "hyena_recurrent", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (21568, 9728)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        D, width, K = c.d_model, (c.order + 1) * c.d_model, c.short_filter_order
        return {
            "in_proj.weight": ParamSpec((width, D), fan_in()),
            "in_proj.bias": ParamSpec((width,), uniform(1 / math.sqrt(D)), weight_decay=False),
            "short_filter.weight": ParamSpec((width, K), uniform(1 / math.sqrt(K)), weight_decay=False),
            "short_filter.bias": ParamSpec((width,), uniform(1 / math.sqrt(K)), weight_decay=False),
            "filter.log_decay": ParamSpec(
                (c.filters, c.modes), self._initial_log_decay, weight_decay=False, lr_scale=0.25
            ),
            "filter.phase": ParamSpec((c.filters, c.modes), self._initial_phase, weight_decay=False, lr_scale=0.25),
            "filter.c": ParamSpec((c.filters, c.modes, 2), normal(0.1 / c.modes), weight_decay=False),
            "filter.bias": ParamSpec((c.filters,), normal(1.0), weight_decay=False),
            "out_proj.weight": ParamSpec((D, D), fan_in(), residual=True),
            "out_proj.bias": ParamSpec((D,), constant(0.0), weight_decay=False),
        }

    def _initial_log_decay(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Memories of 1 to `longest` steps, uniform in log time."""
        return -rng.uniform(0, math.log(self.config.longest), shape)

    def _initial_phase(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(0, math.pi, shape) / np.arange(1, shape[1] + 1)

    def mixing_flops(self, length: int) -> float:
        c, heads = self.config, self.config.heads
        return (c.order - 1) * heads.channels * long_conv_flops(length, length) / length + heads.read_flops

    def step_mixing_flops(self, length: int) -> float:
        c, heads = self.config, self.config.heads
        return 11 * (c.order - 1) * heads.channels * c.modes + heads.read_flops

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        longs = {f"long.{i}": F.zeros(batch, c.heads.channels, c.modes, 2) for i in range(c.order - 1)}
        return {"short": F.zeros(batch, c.short_filter_order - 1, (c.order + 1) * c.d_model), **longs}

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
        c, xp, heads = self.config, F.xp, self.config.heads
        log_a = xp.stack([-xp.exp(p["filter.log_decay"]), p["filter.phase"]], axis=-1)
        u, short = F.causal_conv1d(
            F.linear(x, p["in_proj.weight"], p["in_proj.bias"]),
            p["short_filter.weight"],
            p["short_filter.bias"],
            initial_state=None if state is None else state["short"],
            reset=reset,
            lengths=lengths,
        )
        last_gate, *gates, v = xp.unstack(xp.reshape(u, (*u.shape[:2], c.order + 1, c.d_model)), axis=2)
        after: State = {"short": short}
        for i, gate in enumerate(reversed(gates)):
            own = slice(i * heads.filters, (i + 1) * heads.filters)
            a, residues = (heads.spread(xp, part[own], 0) for part in (log_a, p["filter.c"]))
            v = heads.products(xp, gate, v)
            skip = v * heads.spread(xp, p["filter.bias"][own], 0)
            if state is None and reset is None:
                v = F.long_conv(v, F.diagonal_ssm_filter(a, residues, length=x.shape[1])) + skip
            else:
                before = None if state is None else state[f"long.{i}"]
                v, after[f"long.{i}"] = F.diagonal_ssm(
                    v, a, residues, initial_state=before, reset=reset, lengths=lengths
                )
                v = v + skip
        y = F.linear(heads.read(xp, v, last_gate), p["out_proj.weight"], p["out_proj.bias"])
        return y, None if state is None else after
