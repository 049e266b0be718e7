"""Layers: configs plus pure functions over the op table."""

from helix_core.layers.base import Layer, LayerConfig, Params, State
from helix_core.layers.cost import Cost, attention_cost
from helix_core.layers.init import ParamSpec, init_params

__all__ = ["Cost", "Layer", "LayerConfig", "ParamSpec", "Params", "State", "attention_cost", "init_params"]
