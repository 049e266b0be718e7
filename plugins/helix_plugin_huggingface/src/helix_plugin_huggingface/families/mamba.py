"""Mamba and Falcon Mamba, as transformers has them."""

from __future__ import annotations

from typing import Any

from helix_plugin_huggingface.families._backbone import NEUTRAL, Backbone
from helix_plugin_huggingface.families.base import (
    Config,
    described,
    flag,
    inner_over_width,
    layers,
    number,
    plain,
    real,
    require_one_of,
    the_mixer,
)
from helix_plugin_lm.models import ModelConfig


class Mamba(Backbone):
    """MambaForCausalLM; FalconMambaForCausalLM if B, C and the step sizes are normalised."""

    neutral = NEUTRAL

    def __init__(self, model_type: str, architecture: str, normed: bool) -> None:
        self.model_type, self.architecture, self.normed = model_type, architecture, normed

    def read(self, config: Config) -> ModelConfig:
        require_one_of(config, "hidden_act", ("silu", "swish"), "the layer's activation is silu")
        hidden = number(config, "hidden_size", 768)
        rank = config.get("time_step_rank", "auto")
        mixer: dict[str, Any] = {
            "name": "mamba",
            "d_state": number(config, "state_size", 16),
            "d_conv": number(config, "conv_kernel", 4),
            "expand": inner_over_width(config, hidden),
            "dt_rank": rank if rank == "auto" else number(config, "time_step_rank"),
            "bias": flag(config, "use_bias", False),
            "conv_bias": flag(config, "use_conv_bias", True),
        }
        if self.normed:
            mixer["bcdt_norm_eps"] = real(config, "mixer_rms_eps", 1e-6)
        return described(
            {
                "vocab_size": number(config, "vocab_size", 50280),
                "d_model": hidden,
                "n_layers": layers(config, "num_hidden_layers", 32),
                "mixer": mixer,
                "norm_eps": real(config, "layer_norm_epsilon", 1e-5),
                "tie_embeddings": flag(config, "tie_word_embeddings", True),
            }
        )

    def write(self, model: ModelConfig) -> dict[str, Any] | None:
        mixer = the_mixer(model, "mamba")
        if mixer is None or (mixer["bcdt_norm_eps"] is not None) != self.normed:
            return None
        plain(model, "Mamba")
        config = {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": model.vocab_size,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "state_size": mixer["d_state"],
            "conv_kernel": mixer["d_conv"],
            "expand": mixer["expand"],
            "intermediate_size": mixer["expand"] * model.d_model,
            "time_step_rank": -(-model.d_model // 16) if mixer["dt_rank"] == "auto" else mixer["dt_rank"],
            "use_bias": mixer["bias"],
            "use_conv_bias": mixer["conv_bias"],
            "hidden_act": "silu",
            "layer_norm_epsilon": model.norm_eps,
            "tie_word_embeddings": model.tie_embeddings,
        }
        return config | ({"mixer_rms_eps": mixer["bcdt_norm_eps"]} if self.normed else {})


MAMBA = Mamba("mamba", "MambaForCausalLM", normed=False)
FALCON_MAMBA = Mamba("falcon_mamba", "FalconMambaForCausalLM", normed=True)
