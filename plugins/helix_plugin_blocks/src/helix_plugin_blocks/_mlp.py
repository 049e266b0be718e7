"""What the gated MLPs share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.ops import OpTable

Array = Any


class MLPConfig(LayerConfig):
    """Options of a gated MLP."""

    d_ff: int | None = Field(None, gt=0, description="inner width; default: 8/3 d_model, up to a multiple of 8")
    bias: bool = Field(False, description="add biases to the three maps")

    @property
    def width(self) -> int:
        """The inner width."""
        return -(-self.d_model * 8 // 24) * 8 if self.d_ff is None else self.d_ff


class GatedMLP(Layer[MLPConfig]):
    """y = W_down (gate(W_gate x, W_up x)), every step on its own."""

    reach = 0

    @abstractmethod
    def gate(self, F: OpTable, gate: Array, up: Array) -> Array:
        """gate, up (B, L, d_ff) -> (B, L, d_ff)."""

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        maps = {
            "gate_proj": ParamSpec((c.width, c.d_model), fan_in()),
            "up_proj": ParamSpec((c.width, c.d_model), fan_in()),
            "down_proj": ParamSpec((c.d_model, c.width), fan_in(), residual=True),
        }
        specs = {f"{name}.weight": spec for name, spec in maps.items()}
        if c.bias:
            zeros = {n: ParamSpec(s.shape[:1], constant(0.0), weight_decay=False) for n, s in maps.items()}
            specs |= {f"{name}.bias": spec for name, spec in zeros.items()}
        return specs

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
        gate = F.linear(x, p["gate_proj.weight"], p.get("gate_proj.bias"))
        up = F.linear(x, p["up_proj.weight"], p.get("up_proj.bias"))
        return F.linear(self.gate(F, gate, up), p["down_proj.weight"], p.get("down_proj.bias")), state
