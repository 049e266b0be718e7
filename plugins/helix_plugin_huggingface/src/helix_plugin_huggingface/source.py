"""A foreign checkpoint on disk: its config and its tensors, opened but not read."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.errors import CheckpointError, ComponentUnavailable, ConfigError, HelixError, UsageError
from helix_core.untrusted import read_json, refusing
from helix_plugin_lm.storage.tensor_file import Tensor, open_tensors

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Source:
    """A folder with a config.json and weights."""

    folder: Path
    weights: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name. Raises CheckpointError if a file is missing, damaged or holds anything else."""
        if self.weights.name.endswith(".index.json"):
            return _open_shards(self.weights)
        return _open_weights(self.weights)


def find(path: Path) -> Source:
    """The checkpoint in a folder, or of a weight file with its config.json beside it.

    Raises UsageError if there is none, or one with an adapter, ConfigError if its config.json is no table.
    """
    if path.is_dir():
        weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
        if weights is None:
            raise UsageError(f"{path} has no weights", hint=f"one of {', '.join(WEIGHTS)}")
    elif path.is_file():
        weights = path
        if not path.name.endswith((".safetensors", ".index.json", ".bin")):
            raise UsageError(f"{path} is no weight file", hint="*.safetensors, *.index.json or *.bin, or their folder")
    else:
        raise UsageError(f"there is no {path}", hint="give a folder with config.json and weights, or a weight file")
    folder = weights.parent
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{folder} has no {CONFIG}", hint="it says what the tensors mean; copy it beside them")
    if (folder / ADAPTER).is_file():
        raise UsageError(
            f"{folder} has an adapter, which changes what its weights mean, and Helix reads none",
            hint=f"merge it into the weights with peft, or remove {ADAPTER} to take them without it",
        )
    return Source(folder, weights, read_table(folder / CONFIG))


def read_table(path: Path, error: type[HelixError] = ConfigError) -> dict[str, Any]:
    """The JSON object in a file, where infinities may stand. Raises `error` if it cannot be read or is none."""
    table = read_json(path, error, finite=False)
    if not isinstance(table, dict):
        raise error(f"{path} must be a JSON object, it is a {type(table).__name__}")
    return table


def _open_shards(index: Path) -> dict[str, Tensor]:
    """The tensors that an index lists, each from the file that it names."""
    places = read_table(index, CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{index} is no index of shards: it has no weight_map of names and files")
    files = sorted(set(places.values()))
    for file in files:
        if file in ("", ".", "..") or any(sign in file for sign in "/\\:\0"):
            raise CheckpointError(
                f"{index} names the shard {file!r}, which is not a file beside it",
                hint="shards lie in the folder of their index; do not trust where this one came from",
            )
    with refusing(index, CheckpointError):  # a name may be too long for a file
        absent = [file for file in files if not (index.parent / file).is_file()]
    if absent:
        raise CheckpointError(
            f"{len(absent)} of {len(files)} shards are missing: {shortened_list(absent)}",
            hint=f"copy them to {index.parent}",
        )
    shards = {file: _open_weights(index.parent / file) for file in files}
    found = {f"{file}: {name}" for file, shard in shards.items() for name in shard}
    promised = {f"{file}: {name}" for name, file in places.items()}
    if found != promised:
        problems = [f"missing {name}" for name in sorted(promised - found)]
        problems += [f"not listed {name}" for name in sorted(found - promised)]
        raise CheckpointError(f"the shards do not hold what {index} lists: {shortened_list(problems)}")
    return {name: shards[file][name] for name, file in places.items()}


def shortened_list(items: list[str], limit: int = 20) -> str:
    """All of a list, up to a limit."""
    return "; ".join(items[:limit]) + (f"; and {len(items) - limit} more" if len(items) > limit else "")


def _open_weights(path: Path) -> dict[str, Tensor]:
    return open_pickle(path) if path.suffix == ".bin" else open_tensors(path)


def open_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file, mapped. Nothing in it is executed: torch reads plain tensors only.

    Raises ComponentUnavailable without torch, CheckpointError for any other content.
    """
    try:
        import torch
    except ImportError as error:
        raise ComponentUnavailable(
            f"{path} is a torch file, and torch is not installed",
            hint="pip install 'helix-plugin-huggingface[bin]', or take safetensors weights",
        ) from error
    try:
        # Files of before torch 1.6 are no archives and cannot be mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is not a file of plain tensors, and loading it could run code",
            hint="nothing of it was executed; take safetensors weights from where this file came from",
        ) from error
    except Exception as error:  # torch raises a dozen kinds for damaged files
        raise CheckpointError(f"{path} is not a whole torch file: {first_line(error)}") from error
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path} is refused: it holds something else than tensors by name")
    return {name: _of_torch(name, value, path) for name, value in content.items()}


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its class if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _of_torch(name: str, value: Any, path: Path) -> Tensor:
    import torch

    codes = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
    code = codes.get(value.dtype)
    if code is None or value.layout != torch.strided:
        raise CheckpointError(f"{path}: {name} is a tensor of {value.dtype}, which is no weight that Helix reads")

    if math.prod(value.shape) * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: {name} claims to be {tuple(value.shape)}, of which the file has not all numbers"
        )

    def read() -> np.ndarray:
        plain = value.detach().contiguous()
        array: np.ndarray = (plain.view(torch.uint16) if code == "BF16" else plain).numpy()
        return array

    return Tensor(code, tuple(value.shape), read, str(path))
