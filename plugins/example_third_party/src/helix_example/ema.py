"""A layer: gated exponential moving averages at learned rates."""

import numpy as np
from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig
from helix_core.kinds.params import ParamSpec, fan_in


class EMAConfig(LayerConfig):
    """Options of the EMA layer."""

    shortest: float = Field(1.0, gt=0, description="shortest initial memory, in steps")
    longest: float = Field(256.0, gt=0, description="longest initial memory, in steps")


class EMA(Layer):
    """a = sigmoid(rate), h_t = a h_{t-1} + (1 - a) x_t,  y = W_o (h silu(W_g x)).

    State: h (B, D). Source: the one-dimensional case of Ma et al., Mega: Moving Average Equipped Gated Attention, 2022.

    >>> from helix_core import create
    >>> layer = create("layer", "ema", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (8256, 256)
    """

    def param_specs(self):
        D = self.config.d_model
        return {
            "rate": ParamSpec((D,), self._initial_rates, weight_decay=False),
            "gate.weight": ParamSpec((D, D), fan_in()),
            "out.weight": ParamSpec((D, D), fan_in(), residual=True),
        }

    def _initial_rates(self, rng, shape):
        """Memories spread evenly in log time: sigmoid⁻¹(exp(-1/memory))."""
        memory = np.geomspace(self.config.shortest, self.config.longest, shape[0])
        return -np.log(np.expm1(1 / memory))

    def mixing_flops(self, length):
        return 2 * self.config.d_model

    def init_state(self, F, batch):
        return {"h": F.zeros(batch, self.config.d_model)}

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        a = F.sigmoid(p["rate"]) + F.xp.zeros_like(x)
        h, last = F.linear_scan(
            a, (1 - a) * x, initial_state=None if state is None else state["h"], reset=reset, lengths=lengths
        )
        y = F.linear(h * F.silu(F.linear(x, p["gate.weight"])), p["out.weight"])
        return y, None if state is None else {"h": last}
