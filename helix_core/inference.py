"""A trained run, loaded to generate or to evaluate on any backend."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_core.errors import TokenizerError
from helix_core.models import LanguageModel
from helix_core.ops.half import storage
from helix_core.plugin_system import create
from helix_core.recipes import Recipe
from helix_core.tokenizers import BYTES, TOKENIZER_FILE, FileTokenizer, Tokenizer, check_vocabulary
from helix_core.training.checkpoint import StoredCheckpoint, check_params, open_checkpoint
from helix_core.training.run_folder import RunFolder

if TYPE_CHECKING:
    from helix_core.backends.base import Backend
    from helix_core.ops.table import OpTable


@dataclass(frozen=True)
class LoadedRun:
    """A model with its parameters on a backend, and the op table it runs on (mode "infer")."""

    model: LanguageModel
    backend: Backend
    F: OpTable
    params: dict[str, Any]
    step: int
    recipe: Recipe
    tokenizer: Tokenizer | None
    """None for a model of a task, whose tokens are no text."""
    fingerprint: str
    """Of the model's config and parameters, as far as they decide what the model computes."""


def load_run(path: str | Path, *, backend: str = "auto", dtype: str = "float32") -> LoadedRun:
    """Load a run folder's newest checkpoint, or one checkpoint folder of it, and its tokenizer.

    Raises UsageError if `path` is neither, CheckpointError if the checkpoint is damaged, of another model or holds NaN,
    and what `run_tokenizer` raises.
    """
    run, folder = RunFolder.locate(path)
    recipe = run.recipe()
    model = LanguageModel(recipe.model)
    checkpoint = open_checkpoint(folder)
    check_params(checkpoint.params, {name: spec.shape for name, spec in model.params().items()}, folder)
    tokenizer = run_tokenizer(run, recipe)
    chosen: Backend = create("backend", backend)
    params = {name: chosen.asarray(tensor.numpy(), storage(dtype)) for name, tensor in checkpoint.params.items()}
    F = chosen.bind(dtype=dtype, mode="infer")
    return LoadedRun(model, chosen, F, params, checkpoint.step, recipe, tokenizer, _fingerprint(recipe, checkpoint))


def run_tokenizer(run: RunFolder, recipe: Recipe) -> Tokenizer | None:
    """What a run's tokens are: those of its `tokenizer.json`, else bytes; None if they are no text.

    Raises ComponentUnavailable if the tokenizer's library is missing, TokenizerError if the file cannot be used, and
    ConfigError if the model has fewer tokens.
    """
    file = run.path / TOKENIZER_FILE
    if file.exists():
        tokenizer = FileTokenizer(file, separated=recipe.data.tokenizer is not None)
        check_vocabulary(tokenizer, recipe.model.vocab_size)
        return tokenizer
    if recipe.data.tokenizer is not None:
        raise TokenizerError(f"{run.path} has no {TOKENIZER_FILE}: its model was trained on tokens of one")
    return BYTES if recipe.data.generator is None and recipe.model.vocab_size == BYTES.vocab_size else None


def _fingerprint(recipe: Recipe, checkpoint: StoredCheckpoint) -> str:
    text = f"{recipe.model.model_dump_json()} {checkpoint.digest}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
