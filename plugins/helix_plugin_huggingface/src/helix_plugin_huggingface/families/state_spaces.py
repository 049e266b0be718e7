"""The checkpoints of Mamba's authors (state-spaces/mamba): their config's keys, tensors named as in transformers."""

from __future__ import annotations

import math
from typing import Any

from helix_core.errors import ConfigError
from helix_plugin_huggingface.families._backbone import Backbone
from helix_plugin_huggingface.families.base import Config, described, flag, layers, number, require_one_of
from helix_plugin_huggingface.families.fields import Fields
from helix_plugin_huggingface.families.mamba2 import limits
from helix_plugin_lm.models import ModelConfig

# Of layers: initial values, and how they are computed.
_NEUTRAL = frozenset(["dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "A_init_range", "conv_init"])
_NEUTRAL |= {"use_fast_path", "use_mem_eff_path", "chunk_size"}


class StateSpaces(Backbone):
    """MambaLMHeadModel of mamba_ssm, with layers of Mamba1 or Mamba2."""

    model_type = "state-spaces/mamba"
    architecture = "MambaLMHeadModel"
    neutral = frozenset({"residual_in_fp32", "fused_add_norm", "attn_cfg"})

    def read(self, config: Config) -> ModelConfig:
        table = config.get("ssm_cfg", {})
        if not isinstance(table, dict):
            raise ConfigError(f"config.json: ssm_cfg must be a table; it is {table!r}")
        ssm = Fields(table, "ssm_cfg: ")
        layer = {"Mamba1": "mamba", "Mamba2": "mamba2"}.get(str(ssm.get("layer", "Mamba1")))
        if layer is None:
            raise ConfigError(f"config.json: ssm_cfg.layer must be Mamba1 or Mamba2; it is {ssm['layer']!r}")
        require_one_of(config, "d_intermediate", (0,), "there is no MLP in these families")
        require_one_of(config, "attn_layer_idx", ([], None), "hybrids with attention are not of these families")
        multiple = number(config, "pad_vocab_size_multiple", 8)
        mixer: dict[str, Any] = {
            "name": layer,
            "d_state": number(ssm, "d_state", 16 if layer == "mamba" else 128),
            "d_conv": number(ssm, "d_conv", 4),
            "expand": number(ssm, "expand", 2),
            "bias": flag(ssm, "bias", False),
            "conv_bias": flag(ssm, "conv_bias", True),
        }
        if layer == "mamba":
            rank = ssm.get("dt_rank", "auto")
            mixer["dt_rank"] = rank if rank == "auto" else number(ssm, "dt_rank")
        else:
            require_one_of(ssm, "D_has_hdim", (False,), "the layer has one D for each head")
            require_one_of(ssm, "rmsnorm", (True,), "the layer has a gated norm")
            require_one_of(ssm, "norm_before_gate", (False,), "the layer's norm follows the gate")
            require_one_of(ssm, "d_ssm", (None,), "the layer has no MLP inside")
            mixer["head_dim"] = number(ssm, "headdim", 64)
            mixer["n_groups"] = number(ssm, "ngroups", 1)
            mixer["time_step_limit"] = limits(ssm.get("dt_limit", (0.0, math.inf)))
        ssm.check(_NEUTRAL)
        return described(
            {
                "vocab_size": -(-number(config, "vocab_size") // multiple) * multiple,
                "d_model": number(config, "d_model"),
                "n_layers": layers(config, "n_layer"),
                "mixer": mixer,
                "norm": "rms_norm" if flag(config, "rms_norm", True) else "layer_norm",
                "tie_embeddings": flag(config, "tie_embeddings", True),
            }
        )

    def write(self, model: ModelConfig) -> None:
        """Nothing is written in this layout: transformers' is read by more."""
        return None


STATE_SPACES = StateSpaces()
