"""A layer of the kit's own, so that training can be tested without any layer plugin."""

from __future__ import annotations

from typing import Any

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.ops.table import OpTable
from helix_plugin_lm.models import LanguageModel, ModelConfig


class TinyLayer(Layer[LayerConfig]):
    """A gated linear recurrence behind a short convolution."""

    def param_specs(self) -> dict[str, ParamSpec]:
        D = self.config.d_model
        return {
            "conv.weight": ParamSpec((D, 3), fan_in()),
            "gate.weight": ParamSpec((D, D), fan_in()),
            "gate.bias": ParamSpec((D,), constant(1.0), weight_decay=False),
            "out.weight": ParamSpec((D, D), fan_in(), residual=True),
        }

    def apply(
        self,
        F: OpTable,
        p: Params,
        x: Any,
        *,
        state: State | None = None,
        reset: Any = None,
        lengths: Any = None,
    ) -> tuple[Any, State | None]:
        u, _ = F.causal_conv1d(x, p["conv.weight"], None, None, reset, lengths, activation="silu")
        f = F.sigmoid(F.linear(x, p["gate.weight"], p["gate.bias"]))
        h, _ = F.linear_scan(f, (1 - f) * u, None, reset, lengths)
        return F.linear(h, p["out.weight"]), None


class TinyModel(LanguageModel):
    """A language model of two tiny layers over sixteen symbols."""

    def __init__(self) -> None:
        super().__init__(
            ModelConfig.model_validate({"vocab_size": 16, "d_model": 16, "n_layers": 2, "mixer": {"name": "-"}})
        )

    def _layer(self, component: Any) -> Layer[Any]:
        return TinyLayer(LayerConfig(d_model=self.config.d_model))
