"""A foreign checkpoint used where it lies, without a run folder of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from helix_core.errors import CheckpointError
from helix_core.kinds.backend import Backend
from helix_core.machine import require_memory
from helix_core.ops.half import storage
from helix_core.plugin_system import create
from helix_plugin_huggingface.convert import imported
from helix_plugin_huggingface.reading import family_of, model_of
from helix_plugin_huggingface.source import find
from helix_plugin_lm.models import LanguageModel
from helix_plugin_lm.runs import LoadedRun, RunFolder, RunSpec
from helix_plugin_lm.runs.checkpoint import all_finite, check_size
from helix_plugin_lm.runs.load import run_tokenizer


def load_checkpoint(path: Path, *, backend: str = "auto", dtype: str = "float32") -> LoadedRun:
    """The model of a Hugging Face checkpoint on a backend, with its tokenizer; nothing is written.

    Raises what `helix import` raises for a checkpoint that cannot be read, ComponentUnavailable for a backend that
    cannot be used, NotEnoughMemory if the parameters do not fit.
    """
    source = find(path)
    family = family_of(source.config)
    config = model_of(family, source.config)
    found = source.tensors()
    check_size(found, config, str(source.weights))
    model = LanguageModel(config)
    tensors = imported(family, model, found, str(source.weights))
    chosen: Backend = create("backend", backend)
    needed = model.parameters * np.dtype(storage(dtype)).itemsize
    require_memory(needed, chosen.memory(), f"a model of {model.parameters:,} parameters")
    digest = hashlib.blake2b(json.dumps(source.config, sort_keys=True).encode(), digest_size=16)
    params = {}
    for name, tensor in tensors.items():
        values = tensor.numpy()
        if not all_finite(values):
            raise CheckpointError(f"{source.weights}: {name} holds NaN or infinity", hint="no model computes with it")
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        params[name] = chosen.asarray(values, storage(dtype))
    spec = RunSpec(name=source.name, model=config)
    F = chosen.bind(dtype=dtype, mode="infer")
    tokenizer = run_tokenizer(RunFolder(source.folder), spec)  # both keep it in the same place
    return LoadedRun(model, chosen, F, params, 0, spec, tokenizer, digest.hexdigest())
