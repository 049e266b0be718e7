"""Mamba-2, as transformers has it."""

from __future__ import annotations

import math
from reprlib import repr as shortened
from typing import Any

from helix_core.errors import ConfigError, UsageError
from helix_plugin_huggingface.families._backbone import NEUTRAL, Backbone
from helix_plugin_huggingface.families.base import (
    Config,
    described,
    flag,
    layers,
    number,
    plain,
    real,
    require_one_of,
    the_mixer,
)
from helix_plugin_lm.models import ModelConfig


class Mamba2(Backbone):
    """Mamba2ForCausalLM."""

    model_type = "mamba2"
    architecture = "Mamba2ForCausalLM"
    neutral = NEUTRAL | {"chunk_size", "time_step_rank", "norm_before_gate"}

    def read(self, config: Config) -> ModelConfig:
        require_one_of(config, "hidden_act", ("silu", "swish"), "the layer's activation is silu")
        hidden, head_dim = number(config, "hidden_size", 4096), number(config, "head_dim", 64)
        heads, expand = number(config, "num_heads", 128), number(config, "expand", 2)
        require_one_of(config, "intermediate_size", (None, expand * hidden), "transformers reads expand instead")
        if heads * head_dim != expand * hidden:
            raise ConfigError(
                f"config.json: num_heads * head_dim = {heads * head_dim} must be expand * hidden_size = "
                f"{expand * hidden}"
            )
        eps = real(config, "layer_norm_epsilon", 1e-5)
        return described(
            {
                "vocab_size": number(config, "vocab_size", 32768),
                "d_model": hidden,
                "n_layers": layers(config, "num_hidden_layers", 64),
                "mixer": {
                    "name": "mamba2",
                    "d_state": number(config, "state_size", 128),
                    "d_conv": number(config, "conv_kernel", 4),
                    "expand": expand,
                    "head_dim": head_dim,
                    "n_groups": number(config, "n_groups", 8),
                    "bias": flag(config, "use_bias", False),
                    "conv_bias": flag(config, "use_conv_bias", True),
                    "time_step_limit": limits(config.get("time_step_limit", (0.0, math.inf))),
                    "norm_eps": eps,
                },
                "norm_eps": eps,
                "tie_embeddings": flag(config, "tie_word_embeddings", False),
            }
        )

    def write(self, model: ModelConfig) -> dict[str, Any] | None:
        mixer = the_mixer(model, "mamba2")
        if mixer is None:
            return None
        plain(model, "Mamba-2")
        if mixer["norm_eps"] != model.norm_eps:
            raise UsageError(
                f"Hugging Face's Mamba-2 has one epsilon for all norms, this run's model has {model.norm_eps} and, "
                f"inside its layers, {mixer['norm_eps']}"
            )
        inner = mixer["expand"] * model.d_model
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": model.vocab_size,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "num_heads": inner // mixer["head_dim"],
            "head_dim": mixer["head_dim"],
            "state_size": mixer["d_state"],
            "conv_kernel": mixer["d_conv"],
            "expand": mixer["expand"],
            "n_groups": mixer["n_groups"],
            "use_bias": mixer["bias"],
            "use_conv_bias": mixer["conv_bias"],
            "time_step_limit": list(mixer["time_step_limit"]),
            "hidden_act": "silu",
            "layer_norm_epsilon": model.norm_eps,
            "tie_word_embeddings": model.tie_embeddings,
        }


def limits(value: Any) -> tuple[float, float]:
    """Bounds of the step size; infinity may be written as `{"__float__": "Infinity"}`, as transformers does."""
    try:
        low, high = (float(v["__float__"] if isinstance(v, dict) else v) for v in value)
        if not low <= high:
            raise ValueError("NaN, or the upper is below the lower")
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ConfigError(f"config.json: time_step_limit must be two numbers; it is {shortened(value)}") from error
    return low, high


MAMBA2 = Mamba2()
