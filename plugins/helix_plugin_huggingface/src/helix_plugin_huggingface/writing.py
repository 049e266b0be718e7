"""`helix export`: a run as a checkpoint that transformers loads."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from helix_core.errors import ConfigError, UsageError
from helix_plugin_huggingface.convert import FLOATS, exported
from helix_plugin_huggingface.families import FAMILIES, Family
from helix_plugin_huggingface.interruptible import interruptible
from helix_plugin_huggingface.new_folder import check_free, new_folder
from helix_plugin_huggingface.reading import BESIDE, DTYPES, KEPT, TOKENIZER, copy_beside
from helix_plugin_huggingface.source import CONFIG, read_table
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_plugin_lm.runs import RunFolder
from helix_plugin_lm.runs.checkpoint import check_params, check_size, open_checkpoint
from helix_plugin_lm.storage.tensor_file import write_tensors

CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def family_for(model: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """The family that a model is one of, and its config.json. Raises UsageError if there is none."""
    for family in FAMILIES.values():
        config = family.write(model)
        if config is not None:
            return family, config
    mixers = ", ".join(sorted({mixer.name for mixer in model.mixer}))
    raise UsageError(
        f"transformers has no model of {mixers} blocks like this run's",
        hint=f"runs of one layer throughout can be exported as {', '.join(f.architecture for f in FAMILIES.values())}",
    )


def export_run(path: str | Path, out: Path, dtype: str | None = None) -> dict[str, Any]:
    """Write the newest checkpoint of a run, or one checkpoint of it, to a new folder `out`; returns a summary.

    Tensors keep the dtype that they were imported in, or get `dtype`; those of a run that was trained from scratch are
    float32. Raises UsageError if transformers has no such model, CheckpointError if the checkpoint is damaged.
    """
    check_free(out)
    run, folder = RunFolder.locate(path)
    spec = run.spec()
    family, config = family_for(spec.model)
    stored = open_checkpoint(folder)
    check_size(stored.params, spec.model, folder)
    model = LanguageModel(spec.model)
    check_params(stored.params, {name: spec.shape for name, spec in model.param_specs().items()}, folder)
    kept = run.path / KEPT
    codes = read_table(kept / DTYPES) if dtype is None and (kept / DTYPES).is_file() else {}
    if wrong := [code for code in codes.values() if code not in FLOATS]:
        raise ConfigError(f"{kept / DTYPES} names the dtype {wrong[0]!r}", hint="export with --dtype")
    original = read_table(kept / CONFIG) if (kept / CONFIG).is_file() else {}
    if original.get("model_type") == family.model_type:
        config = {**original, **config}
        config.pop("torch_dtype", None)
    else:
        # Bytes have no special tokens; without these, transformers' defaults would name some.
        config |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **family.fresh}
    tensors = exported(family, model, stored.params, codes, CODES[dtype or "float32"])
    used = {tensor.code for tensor in tensors.values()}
    most = max(CODES, key=lambda name: sum(math.prod(t.shape) for t in tensors.values() if t.code == CODES[name]))
    config["dtype"] = most if len(used) == 1 or "dtype" not in original else original["dtype"]
    with new_folder(out) as temporary, interruptible(tensors, "exporting") as (stopping, watch):
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        size, _ = write_tensors(temporary / "model.safetensors", stopping, {"format": "pt"})
        copy_beside(kept, temporary)
        # A run that was trained here has its own word on the tokens that end texts.
        for file in BESIDE:
            if (run.path / file).is_file() and not (temporary / file).exists():
                shutil.copyfile(run.path / file, temporary / file)
        if (run.path / TOKENIZER).is_file():
            shutil.copyfile(run.path / TOKENIZER, temporary / TOKENIZER)
        watch.check()
    return {
        "folder": str(out),
        "architecture": family.architecture,
        "tensors": len(tensors),
        "bytes": size,
        "step": stored.step,
        "dtype": config["dtype"],
    }
