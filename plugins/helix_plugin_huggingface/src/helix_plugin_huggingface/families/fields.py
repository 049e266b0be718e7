"""The fields of a config.json: read, known to change nothing, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from helix_core.errors import ConfigError

_GENERATION = [
    "max_length",
    "min_length",
    "max_new_tokens",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
]
_TASKS = [
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "finetuning_task",
    "task_specific_params",
    "tokenizer_class",
    "prefix",
]
_FORM = [
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "architectures",
    "auto_map",
    "model_type",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "experts_implementation",
    "tie_last_hidden_states",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "initializer_range",
]
NEUTRAL = frozenset([*_GENERATION, *_TASKS, *_FORM])
"""Fields of any model of transformers that do not change its logits; tokens that end texts are the tokenizer's."""
OFF = frozenset(
    [
        "is_encoder_decoder",
        "is_decoder",
        "add_cross_attention",
        "cross_attention_hidden_size",
        "tie_encoder_decoder",
        "pruned_heads",
        "chunk_size_feed_forward",
        "per_layer_config",
        "quantization_config",
        "use_sliding_window",
    ]
)
"""Fields that change nothing as long as they say nothing: false, 0, or empty."""


class Fields(Mapping[str, Any]):
    """A table of a config.json that remembers which of its fields were read."""

    def __init__(self, table: Mapping[str, Any], where: str = "") -> None:
        self._table, self._where = dict(table), where
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return self._table[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def check(self, neutral: frozenset[str] = frozenset()) -> None:
        """Raise ConfigError that names every field that was not read and is not known to be neutral.

        A null says nothing, whatever its name.
        """
        unknown = [
            f"{key} = {str(value)[:80]}"
            for key, value in self._table.items()
            if value is not None and key not in self._read | neutral and not (key in OFF and not value)
        ]
        if unknown:
            raise ConfigError(
                f"config.json: {self._where}{'; '.join(unknown[:20])} cannot be imported: Helix does not know what it "
                "changes",
                hint="delete it from config.json if the model is the same without it",
            )
