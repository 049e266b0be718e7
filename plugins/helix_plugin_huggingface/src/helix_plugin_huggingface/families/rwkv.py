"""RWKV-4, as transformers has it."""

from __future__ import annotations

from typing import Any

from helix_core.errors import ConfigError, UsageError
from helix_plugin_huggingface.families.base import Config, Family, Name, flag, number, real, the_layers
from helix_plugin_lm.models import ModelConfig

EPS = 1e-5
"""Of the last norm, whatever the config says of the others."""

_PARTS = {"mixer_norm": "ln1", "mixer": "attention", "mlp_norm": "ln2", "mlp": "feed_forward"}


class Rwkv(Family):
    """RwkvForCausalLM: `rwkv.blocks.0.attention.time_decay` and so on; mixes have two axes more.

    `rescale_every` keeps float16 from overflowing: at inference transformers halves weights and streams every so many
    blocks. The result is the same but for rounding and for the epsilon of norms, which it does not scale; Helix, like
    transformers in training, does without.
    """

    model_type = "rwkv"
    architecture = "RwkvForCausalLM"
    head = "head.weight"

    def read(self, config: Config) -> ModelConfig:
        hidden = number(config, "hidden_size", 4096)
        eps = real(config, "layer_norm_epsilon", EPS)
        if eps != EPS:
            raise ConfigError(f"config.json: layer_norm_epsilon = {eps} cannot be imported: the last norm has {EPS}")
        given = {key: value for key, value in config.items() if value is not None}
        inner = number(given, "intermediate_size", 4 * hidden)
        attention = number(given, "attention_hidden_size", hidden)
        # A width that is no multiple: the half more is cut off again.
        expand = inner / hidden if inner % hidden == 0 else (inner + 0.5) / hidden
        return ModelConfig.model_validate(
            {
                "vocab_size": number(config, "vocab_size", 50277),
                "d_model": hidden,
                "n_layers": number(config, "num_hidden_layers", 32),
                "mixer": {"name": "rwkv4"} | ({} if attention == hidden else {"d_attention": attention}),
                "mlp": {"name": "rwkv4_channel_mix", "expand": expand},
                "norm": "layer_norm",
                "norm_eps": eps,
                "embedding_norm": True,
                "tie_embeddings": flag(config, "tie_word_embeddings", False),
            }
        )

    def write(self, model: ModelConfig) -> dict[str, Any] | None:
        mixers, mlps = the_layers(model, "mixer"), the_layers(model, "mlp")
        if {name for name, _ in mixers} != {"rwkv4"}:
            return None
        if {name for name, _ in mlps} != {"rwkv4_channel_mix"}:
            raise UsageError(
                "Hugging Face's RWKV has the mlp rwkv4_channel_mix in every block, this run's model has not"
            )
        if any(layer != layers[0] for layers in (mixers, mlps) for layer in layers):
            raise UsageError("the layers of this run differ from each other; a Hugging Face config has one kind")
        if model.norm != "layer_norm" or not model.embedding_norm or model.norm_eps != EPS:
            raise UsageError(
                f"Hugging Face's RWKV has layer norms with an epsilon of {EPS}, of the embeddings too",
                hint='train it with model.norm = "layer_norm" and model.embedding_norm = true',
            )
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": model.vocab_size,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "attention_hidden_size": mixers[0][1]["d_attention"] or model.d_model,
            "intermediate_size": max(1, int(mlps[0][1]["expand"] * model.d_model)),
            "layer_norm_epsilon": model.norm_eps,
            "tie_word_embeddings": model.tie_embeddings,
        }

    def foreign(self, name: str, shape: tuple[int, ...]) -> Name:
        part, rest = name.split(".", 1)
        if part == "head":
            return Name(self.head, shape)
        if part != "blocks":
            return Name({"embedding": "rwkv.embeddings.", "embedding_norm": "rwkv.blocks.0.pre_ln."}.get(
                part, "rwkv.ln_out."
            ) + rest, shape)  # fmt: skip
        index, part, rest = rest.split(".", 2)
        if rest.startswith("time_mix"):
            shape = (1, 1, *shape)
        return Name(f"rwkv.blocks.{index}.{_PARTS[part]}.{rest}", shape)


RWKV = Rwkv()
