"""Optimizers: update rules in the array API alone, so that one rule serves every backend that has gradients."""

from helix_core.kinds.optimizer import Optimizer, OptimizerConfig, OptimizerState
from helix_plugin_training.optimizers.clip import clip_by_global_norm, global_norm

__all__ = ["Optimizer", "OptimizerConfig", "OptimizerState", "clip_by_global_norm", "global_norm"]
