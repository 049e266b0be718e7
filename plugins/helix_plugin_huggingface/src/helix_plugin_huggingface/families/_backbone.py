"""Names that the Mamba families share."""

from __future__ import annotations

from collections.abc import Mapping

from helix_plugin_huggingface.families.base import Family, Name

# How a model is initialised or computed; and names of its authors' layout, which transformers does not read.
NEUTRAL = frozenset(
    [
        "time_step_min",
        "time_step_max",
        "time_step_floor",
        "time_step_scale",
        "time_step_init_scheme",
        "rescale_prenorm_residual",
        "residual_in_fp32",
        "fused_add_norm",
        "use_mambapy",
        "use_falcon_mambapy",
        "use_associative_scan",
        "d_model",
        "d_inner",
        "n_layer",
        "ssm_cfg",
        "rms_norm",
        "pad_vocab_size_multiple",
    ]
)


class Backbone(Family):
    """`backbone.layers.0.mixer.in_proj.weight` and so on; convolutions have an axis more."""

    aliases: Mapping[str, str] = {"backbone.embeddings.weight": "backbone.embedding.weight"}

    def foreign(self, name: str, shape: tuple[int, ...]) -> Name:
        if name == "head.weight":
            return Name(self.head, shape)
        part, rest = name.split(".", 1)
        if part == "embedding":
            return Name(f"backbone.embeddings.{rest}", shape)
        if part == "norm":
            return Name(f"backbone.norm_f.{rest}", shape)
        rest = rest.replace("mixer_norm.", "norm.", 1)
        if rest.endswith("conv1d.weight"):
            shape = (shape[0], 1, shape[1])
        return Name(f"backbone.layers.{rest}", shape)
