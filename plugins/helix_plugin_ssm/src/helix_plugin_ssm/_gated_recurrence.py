"""What the minimal recurrent units share: options, projections, and the recurrence by one linear scan."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import Initializer, ParamSpec, constant, fan_in
from helix_core.ops import OpTable

Array = Any


class MinimalConfig(LayerConfig):
    """Options of minGRU and minLSTM."""

    expand: float = Field(1.0, gt=0, description="inner width over d_model, E = expand * d_model")

    longest: float = Field(128.0, gt=2, description="longest memory to start with, in steps")

    @property
    def d_inner(self) -> int:
        """Channels of the recurrence."""
        return max(1, int(self.expand * self.d_model))


class MinimalUnit(Layer[MinimalConfig]):
    """h_t = a_t h_{t-1} + b_t g(x_t), one linear scan, then y = W_out h.

    The gates' biases start so that the channels remember for 1 to `longest` steps: Tallec and Ollivier, Can Recurrent
    Neural Networks Warp Time?, 2018.
    """

    gates: ClassVar[dict[str, int]] = {}
    """Names, and whether a large value keeps the state (1) or lets the input in (-1)."""

    def param_specs(self) -> dict[str, ParamSpec]:
        D, E = self.config.d_model, self.config.d_inner
        specs = {}
        for name in (*self.gates, "to_hidden"):
            specs[f"{name}.weight"] = ParamSpec((E, D), fan_in())
            start = self._memory(self.gates[name]) if name in self.gates else constant(0.0)
            specs[f"{name}.bias"] = ParamSpec((E,), start, weight_decay=False)
        specs["to_out.weight"] = ParamSpec((D, E), fan_in(), residual=True)
        return specs

    def _memory(self, sign: int) -> Initializer:
        return lambda rng, shape: sign * np.log(rng.uniform(1.0, self.config.longest - 1, shape))

    def coefficients(self, F: OpTable, gates: list[Array]) -> tuple[Array, Array]:
        """From the gates' preactivations (B, L, E): how much of the state stays, how much of the input enters."""
        raise NotImplementedError

    def mixing_flops(self, length: int) -> float:
        return 2 * self.config.d_inner

    def init_state(self, F: OpTable, batch: int) -> State:
        return {"h": F.zeros(batch, self.config.d_inner)}

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
        keep, enter = self.coefficients(F, [F.linear(x, p[f"{n}.weight"], p[f"{n}.bias"]) for n in self.gates])
        hidden = F.linear(x, p["to_hidden.weight"], p["to_hidden.bias"])
        # The paper's g: positive and continuous, so that its logarithmic form exists.
        positive = hidden > 0
        hidden = F.xp.where(positive, hidden + 0.5, F.sigmoid(hidden))
        h, last = F.linear_scan(
            keep, enter * hidden, None if state is None else state["h"], reset=reset, lengths=lengths
        )
        return F.linear(h, p["to_out.weight"]), None if state is None else {"h": last}
