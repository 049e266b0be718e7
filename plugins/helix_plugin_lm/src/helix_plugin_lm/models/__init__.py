"""Models: what recipes train, built from one config."""

from helix_core.kinds.component import ComponentConfig
from helix_plugin_lm.models.config import ModelConfig
from helix_plugin_lm.models.language_model import LanguageModel, loss

__all__ = ["ComponentConfig", "LanguageModel", "ModelConfig", "loss"]
