"""A trained run, loaded to generate or to evaluate on any backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_core.models import LanguageModel
from helix_core.ops.half import storage
from helix_core.plugin_system import create
from helix_core.recipes import Recipe
from helix_core.training.checkpoint import check_params, open_checkpoint
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


def load_run(path: str | Path, *, backend: str = "auto", dtype: str = "float32") -> LoadedRun:
    """Load a run folder's newest checkpoint, or one checkpoint folder of it.

    Raises UsageError if `path` is neither, CheckpointError if the checkpoint is damaged or of another model.
    """
    run, folder = RunFolder.locate(path)
    recipe = run.recipe()
    model = LanguageModel(recipe.model)
    checkpoint = open_checkpoint(folder)
    check_params(checkpoint.params, {name: spec.shape for name, spec in model.params().items()}, folder)
    chosen: Backend = create("backend", backend)
    params = {name: chosen.asarray(tensor.numpy(), storage(dtype)) for name, tensor in checkpoint.params.items()}
    return LoadedRun(model, chosen, chosen.bind(dtype=dtype, mode="infer"), params, checkpoint.step, recipe)
