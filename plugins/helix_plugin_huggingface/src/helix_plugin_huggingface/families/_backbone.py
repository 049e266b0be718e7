"""Names that the Mamba families share."""

from __future__ import annotations

from collections.abc import Mapping

from helix_plugin_huggingface.families.base import Family, Name


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
