"""Layers: configs plus pure functions over the op table."""

from helix_core.layers.base import Layer, LayerConfig, Params, State
from helix_core.layers.init import ParamSpec, init_params

__all__ = ["Layer", "LayerConfig", "ParamSpec", "Params", "State", "init_params"]
