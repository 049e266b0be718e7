"""Models: what recipes train, built from one config."""

from helix_core.models.config import ComponentConfig, ModelConfig
from helix_core.models.language_model import LanguageModel, loss

__all__ = ["ComponentConfig", "LanguageModel", "ModelConfig", "loss"]
