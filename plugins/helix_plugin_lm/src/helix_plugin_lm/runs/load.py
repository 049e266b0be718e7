"""A trained run, loaded to generate or to evaluate on any backend."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import TokenizerError
from helix_core.machine import require_memory
from helix_core.ops.half import storage
from helix_core.plugin_system import create
from helix_plugin_lm.models import LanguageModel
from helix_plugin_lm.runs.checkpoint import StoredCheckpoint, check_params, check_size, open_checkpoint
from helix_plugin_lm.runs.run_folder import RunFolder
from helix_plugin_lm.runs.spec import RunSpec
from helix_plugin_lm.tokenizers import BYTES, TOKENIZER_FILE, FileTokenizer, Tokenizer, check_vocabulary

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable


@dataclass(frozen=True)
class LoadedRun:
    """A model with its parameters on a backend, and the op table it runs on (mode "infer")."""

    model: LanguageModel
    backend: Backend
    F: OpTable
    params: dict[str, Any]
    step: int
    spec: RunSpec
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
    spec = run.spec()
    checkpoint = open_checkpoint(folder)
    check_size(checkpoint.params, spec.model, folder)
    model = LanguageModel(spec.model)
    check_params(checkpoint.params, {name: spec.shape for name, spec in model.param_specs().items()}, folder)
    tokenizer = run_tokenizer(run, spec)
    chosen: Backend = create("backend", backend)
    needed = model.parameters * np.dtype(storage(dtype)).itemsize
    require_memory(needed, chosen.memory(), f"a model of {model.parameters:,} parameters")
    params = {name: chosen.asarray(tensor.numpy(), storage(dtype)) for name, tensor in checkpoint.params.items()}
    F = chosen.bind(dtype=dtype, mode="infer")
    return LoadedRun(model, chosen, F, params, checkpoint.step, spec, tokenizer, _fingerprint(spec, checkpoint))


def run_tokenizer(run: RunFolder, spec: RunSpec) -> Tokenizer | None:
    """What a run's tokens are: those of its `tokenizer.json`, else bytes; None if they are no text.

    Raises ComponentUnavailable if the tokenizer's library is missing, TokenizerError if the file cannot be used, and
    ConfigError if it is the tokenizer of another model.
    """
    file = run.path / TOKENIZER_FILE
    if file.exists():
        tokenizer = FileTokenizer(file, separated=spec.data.tokenizer is not None)
        check_vocabulary(tokenizer, spec.model.vocab_size)
        return tokenizer
    if spec.data.tokenizer is not None:
        raise TokenizerError(f"{run.path} has no {TOKENIZER_FILE}: its model was trained on tokens of one")
    return BYTES if spec.data.generator is None and spec.model.vocab_size == BYTES.vocab_size else None


def _fingerprint(spec: RunSpec, checkpoint: StoredCheckpoint) -> str:
    text = f"{spec.model.model_dump_json()} {checkpoint.digest}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
