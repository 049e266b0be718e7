"""Qwen3-Next, as transformers has it: Gated DeltaNet, gated attention, MLPs and mixtures of experts."""

from __future__ import annotations

from typing import Any

from helix_core.errors import ConfigError, UsageError
from helix_plugin_huggingface.families.base import (
    Config,
    Family,
    Name,
    described,
    flag,
    layers,
    number,
    real,
    repeated,
    require_one_of,
    the_layers,
)
from helix_plugin_huggingface.families.fields import Fields
from helix_plugin_lm.models import ModelConfig

LINEAR, FULL = "linear_attention", "full_attention"

_BLOCK = {"mixer_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm", "mlp": "mlp"}
_ATTENTION = ("q_proj.", "k_proj.", "v_proj.", "o_proj.", "q_norm.", "k_norm.")


class Qwen3Next(Family):
    """Qwen3NextForCausalLM. Tensors of multi-token prediction, which transformers does not read, are left out."""

    model_type = "qwen3_next"
    architecture = "Qwen3NextForCausalLM"
    ignored = ("mtp.",)
    neutral = frozenset({"attention_dropout", "output_router_logits", "sliding_window", "max_window_layers"})

    def read(self, config: Config) -> ModelConfig:
        require_one_of(config, "hidden_act", ("silu", "swish"), "the layers' activation is silu")
        blocks, eps = layers(config, "num_hidden_layers", 48), real(config, "rms_norm_eps", 1e-6)
        mixer = {LINEAR: self._delta_net(config, eps), FULL: self._attention(config, eps)}
        dense = {"name": "swiglu", "d_ff": number(config, "intermediate_size", 5632)}
        sparse = _sparse(config, blocks)
        experts = self._experts(config)
        return described(
            {
                "vocab_size": number(config, "vocab_size", 151936),
                "d_model": number(config, "hidden_size", 2048),
                "n_layers": blocks,
                "mixer": repeated([mixer[kind] for kind in _kinds(config, blocks)]),
                "mlp": repeated([experts if moe else dense for moe in sparse]),
                "norm": "zero_centered_rms_norm",
                "norm_eps": eps,
                "tie_embeddings": flag(config, "tie_word_embeddings", False),
            }
        )

    def _delta_net(self, config: Config, eps: float) -> dict[str, Any]:
        return {
            "name": "gated_deltanet",
            "n_heads": number(config, "linear_num_value_heads", 32),
            "n_key_heads": number(config, "linear_num_key_heads", 16),
            "d_key": number(config, "linear_key_head_dim", 128),
            "d_value": number(config, "linear_value_head_dim", 128),
            "d_conv": number(config, "linear_conv_kernel_dim", 4),
            "norm_eps": eps,
        }

    def _attention(self, config: Config, eps: float) -> dict[str, Any]:
        head_dim, rope = number(config, "head_dim", 256), self._rope(config)
        fraction = real(rope, "partial_rotary_factor", 0.25)
        if (turned := int(head_dim * fraction)) % 2:
            raise ConfigError(
                f"config.json: head_dim * partial_rotary_factor = {turned} cannot be imported: Helix turns an even "
                "number of channels"
            )
        biased = flag(config, "attention_bias", False)
        return {
            "name": "attention",
            "n_heads": number(config, "num_attention_heads", 16),
            "n_kv_heads": number(config, "num_key_value_heads", 2),
            "head_dim": head_dim,
            "max_length": number(config, "max_position_embeddings", 32768),
            "rope_theta": real(rope, "rope_theta", 10000.0),
            "rope_fraction": fraction,
            "qk_norm": "zero_centered",
            "gate": True,
            "qkv_bias": biased,
            "o_bias": biased,
            "norm_eps": eps,
        }

    def _rope(self, config: Config) -> Config:
        """What rotary positions are made of: fields of a table of their own count more than those outside of it."""
        table = config.get("rope_parameters") or {}
        if not isinstance(table, dict):
            raise ConfigError(f"config.json: rope_parameters must be a table; it is {table!r}")
        require_one_of(config, "rope_scaling", (None,), "rotary positions are not rescaled")
        rope = Fields(table, "rope_parameters: ")
        for key in ("rope_type", "type"):
            require_one_of(rope, key, ("default",), "rotary positions are not rescaled")
        outside = {key: config[key] for key in ("rope_theta", "partial_rotary_factor") if key in config}
        found = outside | {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
        rope.check()
        return found

    def _experts(self, config: Config) -> dict[str, Any]:
        return {
            "name": "moe",
            "n_experts": number(config, "num_experts", 512, least=0),
            "top_k": number(config, "num_experts_per_tok", 10),
            "normalize": flag(config, "norm_topk_prob", True),
            "balance": real(config, "router_aux_loss_coef", 0.001, zero=True),
            "expert": {"name": "swiglu", "d_ff": number(config, "moe_intermediate_size", 512)},
            "shared_expert": {"name": "swiglu", "d_ff": number(config, "shared_expert_intermediate_size", 512)},
        }

    def write(self, model: ModelConfig) -> dict[str, Any] | None:
        mixers, mlps = the_layers(model, "mixer"), the_layers(model, "mlp")
        kinds = [name for name, _ in mixers]
        if "gated_deltanet" not in kinds:
            return None
        delta = _one(mixers, "gated_deltanet")
        attention, dense, experts = _one(mixers, "attention"), _one(mlps, "swiglu"), _one(mlps, "moe")
        self._check(model, kinds, [name for name, _ in mlps], delta, attention, dense, experts)
        config: dict[str, Any] = {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": model.vocab_size,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "layer_types": [LINEAR if kind == "gated_deltanet" else FULL for kind in kinds],
            "linear_num_value_heads": delta["n_heads"],
            "linear_num_key_heads": delta["n_key_heads"] or delta["n_heads"],
            "linear_key_head_dim": delta["d_key"] or max(1, model.d_model // delta["n_heads"]),
            "linear_value_head_dim": delta["d_value"] or max(1, model.d_model // delta["n_heads"]),
            "linear_conv_kernel_dim": delta["d_conv"],
            "hidden_act": "silu",
            "rms_norm_eps": model.norm_eps,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [i for i, (name, _) in enumerate(mlps) if name == "swiglu"],
            "num_experts": experts["n_experts"] if experts else 0,
            "tie_word_embeddings": model.tie_embeddings,
        }
        if attention:
            heads = attention["n_heads"]
            config |= {
                "num_attention_heads": heads,
                "num_key_value_heads": attention["n_kv_heads"] or heads,
                "head_dim": attention["head_dim"] or model.d_model // heads,
                "max_position_embeddings": attention["max_length"],
                "attention_bias": attention["qkv_bias"],
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": attention["rope_theta"],
                    "partial_rotary_factor": attention["rope_fraction"],
                },
            }
        if dense:
            config["intermediate_size"] = _width(dense, model.d_model)
        if experts:
            top_k = experts["top_k"] or 2
            config |= {
                "num_experts_per_tok": top_k,
                "norm_topk_prob": top_k > 1 if experts["normalize"] is None else experts["normalize"],
                "router_aux_loss_coef": experts["balance"],
                "moe_intermediate_size": _width(experts["expert"], model.d_model),
                "shared_expert_intermediate_size": _width(experts["shared_expert"], model.d_model),
            }
        return config

    def _check(
        self,
        model: ModelConfig,
        mixers: list[str],
        mlps: list[str],
        delta: dict[str, Any],
        attention: dict[str, Any],
        dense: dict[str, Any],
        experts: dict[str, Any],
    ) -> None:
        """Raise UsageError, saying what is wrong, unless a model with Gated DeltaNet is a Qwen3-Next."""
        eps = {model.norm_eps, delta["norm_eps"], *([attention["norm_eps"]] if attention else [])}
        asked = {"qk_norm": "zero_centered", "gate": True, "rope": True, "window": None}
        wrong = {
            f"the mixers {', '.join(sorted(set(mixers)))}": not set(mixers) <= {"gated_deltanet", "attention"},
            "blocks without an mlp": not mlps,
            f"the mlps {', '.join(sorted(set(mlps)))}": not set(mlps) <= {"swiglu", "moe"},
            f"norm = {model.norm!r}": model.norm != "zero_centered_rms_norm",
            "norms with different epsilons": len(eps) > 1,
            "a norm of the embeddings": model.embedding_norm,
            "an mlp with biases": bool(dense and dense["bias"]),
            "attention without n_heads": bool(attention) and attention["n_heads"] is None,
            "biases in some maps of attention only": bool(attention) and attention["qkv_bias"] != attention["o_bias"],
            "experts that are not chosen by a gate": bool(experts) and experts["router"] != "learned",
            "no shared expert": bool(experts) and experts["shared_expert"] is None,
        }
        wrong |= {f"attention with {k} = {attention[k]!r}": attention[k] != v for k, v in asked.items() if attention}
        for kind in ("expert", "shared_expert"):
            if experts and experts[kind]:
                plain = experts[kind]["name"].rpartition("/")[2] == "swiglu" and not experts[kind].get("bias")
                wrong[f"an {kind} that is no plain swiglu"] = not plain
        if found := [what for what, holds in wrong.items() if holds]:
            raise UsageError(
                f"Gated DeltaNet is exported as Qwen3-Next, and this run's model has {'; '.join(found)}",
                hint="docs/huggingface.md has a model of that form",
            )

    def foreign(self, name: str, shape: tuple[int, ...]) -> Name:
        part, rest = name.split(".", 1)
        if part == "head":
            return Name(self.head, shape)
        if part == "embedding":
            return Name(f"model.embed_tokens.{rest}", shape)
        if part == "norm":
            return Name(f"model.norm.{rest}", shape)
        index, part, rest = rest.split(".", 2)
        kind = _BLOCK.get(part) or ("self_attn" if rest.startswith(_ATTENTION) else "linear_attn")
        if rest == "conv1d.weight":
            shape = (shape[0], 1, shape[1])
        return Name(f"model.layers.{index}.{kind}.{rest}", shape)


def _kinds(config: Config, layers: int) -> list[str]:
    """What each block mixes with."""
    kinds, interval = config.get("layer_types"), number(config, "full_attention_interval", 4)
    if kinds is None:
        return [FULL if (i + 1) % interval == 0 else LINEAR for i in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or not set(map(str, kinds)) <= {LINEAR, FULL}:
        raise ConfigError(
            f"config.json: layer_types must be {layers} times {LINEAR!r} or {FULL!r}; it is {str(kinds)[:200]}"
        )
    return kinds


def _sparse(config: Config, layers: int) -> list[bool]:
    """Which blocks have experts."""
    given = config.get("mlp_only_layers") or []
    if not isinstance(given, list) or not all(isinstance(i, int) for i in given):
        raise ConfigError(f"config.json: mlp_only_layers must be a list of numbers; it is {given!r}")
    step = number(config, "decoder_sparse_step", 1)
    experts = number(config, "num_experts", 512, least=0)
    return [experts > 0 and i not in given and (i + 1) % step == 0 for i in range(layers)]


def _one(layers: list[tuple[str, dict[str, Any]]], name: str) -> dict[str, Any]:
    """The options of the layers of a name, {} if there are none. Raises UsageError if they differ."""
    found = [options for kind, options in layers if kind == name]
    if any(options != found[0] for options in found):
        raise UsageError(f"the {name} layers of this run differ from each other; a Hugging Face config has one kind")
    return found[0] if found else {}


def _width(options: dict[str, Any], d_model: int) -> int:
    """The inner width of a swiglu, by its options."""
    from helix_core.plugin_system import create

    given = {key: value for key, value in options.items() if key in ("d_ff", "bias")}
    width: int = create("layer", "swiglu", d_model=d_model, **given).config.width
    return width


QWEN3_NEXT = Qwen3Next()
