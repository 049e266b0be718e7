"""`helix import`: a run folder of a foreign checkpoint."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from helix_core.errors import ConfigError
from helix_core.suggest import did_you_mean
from helix_plugin_huggingface.convert import imported
from helix_plugin_huggingface.families import FAMILIES, NEUTRAL, STATE_SPACES, Family, Fields
from helix_plugin_huggingface.interruptible import interruptible
from helix_plugin_huggingface.new_folder import check_free, new_folder
from helix_plugin_huggingface.source import CONFIG, find
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_plugin_lm.runs import RunFolder
from helix_plugin_lm.runs.checkpoint import check_size, save_checkpoint
from helix_plugin_training.recipes import Recipe, dump_recipe

# What a run keeps of the checkpoint that it came from, for export.
KEPT = "huggingface"
DTYPES = "dtypes.json"
TOKENIZER = "tokenizer.json"
BESIDE = (
    *("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model"),
)
TEMPLATES = "additional_chat_templates"

_HYBRIDS = ("qwen3_5", "qwen3_5_moe", "olmo_hybrid", "kimi_linear")


def family_of(config: dict[str, Any]) -> Family:
    """The family of a config.json. Raises ConfigError for one that is not supported."""
    kind = config.get("model_type")
    if kind is None and "d_model" in config and "n_layer" in config:
        return STATE_SPACES
    if isinstance(kind, str) and kind in FAMILIES:
        return FAMILIES[kind]
    supported = f"supported: {', '.join(FAMILIES)}, and state-spaces/mamba's own (d_model, n_layer, no model_type)"
    if kind is None:
        raise ConfigError("config.json has no model_type", hint=supported)
    if kind in _HYBRIDS:
        raise ConfigError(
            f"model_type {kind!r} is a hybrid of linear attention and attention with another layout than Qwen3-Next's, "
            "which Helix does not read",
            hint=supported,
        )
    raise ConfigError(f"model_type {kind!r} is not supported{did_you_mean(str(kind), FAMILIES)}", hint=supported)


def model_of(family: Family, config: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes. Raises ConfigError for a field that Helix cannot do or does not know."""
    fields = Fields(config)
    model = family.read(fields)
    fields.check(NEUTRAL | family.neutral)
    return model


def import_checkpoint(path: Path, out: Path | None = None) -> dict[str, Any]:
    """Make a run folder `out` of the checkpoint at `path`, by default `runs/` and its name; returns a summary.

    Tensors are read one at a time. Raises UsageError, ConfigError or CheckpointError for what cannot be imported, and
    Interrupted on Ctrl-C; then nothing is written.
    """
    source = find(path)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name).lstrip("._-") or "imported"
    out = out or Path("runs") / name
    check_free(out)
    family = family_of(source.config)
    recipe = Recipe.model_validate(
        {
            "name": name,
            "model": model_of(family, source.config),
            # For a fine-tuning that starts from here; `--set` changes any of it.
            "training": {"steps": 1000, "batch_size": 8},
            "optimizer": {"name": "adamw", "lr": 1e-4},
        }
    )
    found = source.tensors()
    check_size(found, recipe.model, str(source.weights))
    model = LanguageModel(recipe.model)
    params = imported(family, model, found, str(source.weights))
    codes = {theirs.name: found[_present(family, theirs.name, found)].code for theirs in family.names(model).values()}
    with new_folder(out) as temporary, interruptible(params, "importing") as (stopping, progress):
        run = RunFolder(temporary)
        run.write_recipe(dump_recipe(recipe))
        metadata = {"imported": {"family": family.model_type, "dtypes": dict(Counter(codes.values()))}}
        save_checkpoint(run.checkpoints, 0, stopping, {}, metadata)
        kept = temporary / KEPT
        kept.mkdir()
        shutil.copyfile(source.folder / CONFIG, kept / CONFIG)
        (kept / DTYPES).write_text(json.dumps(codes, indent=1))
        copy_beside(source.folder, kept)
        if (source.folder / TOKENIZER).is_file():
            shutil.copyfile(source.folder / TOKENIZER, temporary / TOKENIZER)
        progress.check()
    return {
        "run": str(out),
        "architecture": family.architecture,
        "parameters": sum(tensor.bytes // 4 for tensor in params.values()),
        "tensors": len(params),
        "dtypes": metadata["imported"]["dtypes"],
        "tokenizer": (out / TOKENIZER).is_file(),
        "vocab_size": recipe.model.vocab_size,
    }


def copy_beside(source: Path, target: Path) -> None:
    """Copy what belongs to a tokenizer and is none of Helix's to read, as far as it is there."""
    templates = sorted((source / TEMPLATES).glob("*.jinja"))
    if templates:
        (target / TEMPLATES).mkdir()
    for file in [*(source / name for name in BESIDE), *templates]:
        if file.is_file():
            shutil.copyfile(file, target / file.relative_to(source))


def _present(family: Family, name: str, found: Any) -> str:
    return name if name in found else family.aliases[name]
