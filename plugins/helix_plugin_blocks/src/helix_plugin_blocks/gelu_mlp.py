"""The transformer's MLP: two maps and a GELU between them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.ops import OpTable

Array = Any


class GeluMLPConfig(LayerConfig):
    """Options of the MLP."""

    d_ff: int | None = Field(None, gt=0, description="inner width; default: 4 d_model")
    bias: bool = Field(True, description="add biases to both maps")

    @property
    def width(self) -> int:
        """The inner width."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff


class GeluMLP(Layer[GeluMLPConfig]):
    """Two maps with a GELU, in its tanh form, between them.

        y = W_down gelu(W_up x + b_up) + b_down

    No state: every step on its own.
    Source: Vaswani et al., Attention Is All You Need, 2017; the GELU in place of ReLU as in Radford et al., 2018.

    >>> from helix_core import create
    >>> layer = create("layer", "gelu_mlp", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (33088, 0)
    """

    reach = 0

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        specs = {
            "up_proj.weight": ParamSpec((c.width, c.d_model), fan_in()),
            "down_proj.weight": ParamSpec((c.d_model, c.width), fan_in(), residual=True),
        }
        if c.bias:
            specs["up_proj.bias"] = ParamSpec((c.width,), constant(0.0), weight_decay=False)
            specs["down_proj.bias"] = ParamSpec((c.d_model,), constant(0.0), weight_decay=False)
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
        inner = F.gelu(F.linear(x, p["up_proj.weight"], p.get("up_proj.bias")))
        return F.linear(inner, p["down_proj.weight"], p.get("down_proj.bias")), state
