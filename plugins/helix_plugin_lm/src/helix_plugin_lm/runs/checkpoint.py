"""Checkpoints that survive a kill, a full disk and a truncated file.

A checkpoint is a folder `step-00000500` of safetensors and a manifest with the size and hash of each file, and with a
hash of its own. It is written aside, flushed to disk and renamed into place, so a folder of that name is always whole.
Numbers that are not finite are neither written nor read: no run recovers from them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from helix_core.durable import atomic_folder, clear_leftovers, odd_entry, remove
from helix_core.errors import CheckpointError
from helix_core.untrusted import JSON_BYTES, fits, parse_json, read_text, regular
from helix_plugin_lm.models.config import ModelConfig
from helix_plugin_lm.storage.tensor_file import Tensor, digest_of, of_array, open_tensors, write_tensors

MODEL, OPTIMIZER, MANIFEST = "model.safetensors", "optimizer.safetensors", "manifest.json"
FORMAT, VERSION = "helix-checkpoint", 2
HASH = "blake2b"
_NAME = re.compile(r"^step-(\d{8,})$")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_WHOLE = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: parameters, optimizer moments by `slot/parameter`, and what else the run noted."""

    step: int
    params: dict[str, np.ndarray]
    moments: dict[str, np.ndarray]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class StoredCheckpoint:
    """A verified checkpoint whose tensors are read one at a time; `digest`: the hash of the parameters' file."""

    step: int
    params: dict[str, Tensor]
    moments: dict[str, Tensor]
    metadata: dict[str, Any]
    digest: str


class StoredFile(BaseModel):
    """A file of a checkpoint, as its manifest has it."""

    model_config = ConfigDict(strict=True, frozen=True)

    bytes: int = Field(ge=0)
    blake2b: str


class Manifest(BaseModel):
    """A checkpoint's manifest; the run's metadata stands beside these. Version 1 had no hash of its own."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    format: Literal["helix-checkpoint"]
    version: int = Field(ge=1, le=VERSION)
    step: int = Field(ge=0)
    files: dict[str, StoredFile]
    train_seconds: float = Field(0.0, ge=0)

    @field_validator("files")
    @classmethod
    def _both(cls, files: dict[str, StoredFile]) -> dict[str, StoredFile]:
        if missing := {MODEL, OPTIMIZER} - files.keys():
            raise ValueError(f"{min(missing)} is not listed")
        return files


def save_checkpoint(
    folder: Path,
    step: int,
    params: Mapping[str, Tensor | np.ndarray],
    moments: Mapping[str, Tensor | np.ndarray],
    metadata: Mapping[str, Any],
) -> Path:
    """Write the checkpoint of `step` in `folder`; the ones already there are not touched.

    Raises CheckpointError if it cannot be written, a full disk for instance, if the folder that `folder` is in is gone,
    or if a number is not finite; nothing half-written stays behind.
    """
    final = folder / f"step-{step:08d}"
    try:
        folder.mkdir(exist_ok=True)  # but not what it is in: a run that was removed stays removed
        clear_leftovers(folder)
        with atomic_folder(final) as temporary:
            files = {}
            for name, tensors in ((MODEL, params), (OPTIMIZER, moments)):
                checked = {k: _checked(k, t, f"{final} is not saved") for k, t in tensors.items()}
                size, digest = write_tensors(temporary / name, checked)
                files[name] = {"bytes": size, HASH: digest}
            manifest = {"format": FORMAT, "version": VERSION, "step": step, "files": files, **metadata}
            text = _text({**manifest, HASH: _digest(manifest)})
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            remove(final)
    except OSError as error:
        kept = latest_checkpoint(folder)
        gone = not folder.parent.exists()
        raise CheckpointError(
            f"cannot write checkpoint {final}: "
            + (f"{folder.parent} is gone" if gone else f"{error.strerror or error}"),
            hint="start the run anew"
            if gone
            else f"{kept.name} is kept; free some space and resume"
            if kept
            else "free some space and try again",
        ) from error
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint folder.

    Raises CheckpointError if it is missing, not a Helix checkpoint, or if a file is truncated or altered.
    """
    stored = open_checkpoint(path)
    params, moments = (
        {name: tensor.numpy() for name, tensor in tensors.items()} for tensors in (stored.params, stored.moments)
    )
    return Checkpoint(stored.step, params, moments, stored.metadata)


def open_checkpoint(path: Path) -> StoredCheckpoint:
    """Verify one checkpoint folder, without reading all of it into memory; raises what `load_checkpoint` does.

    Reading a tensor raises CheckpointError if a number in it is not finite.
    """
    manifest = _read_manifest(path)
    tensors = {}
    for name in (MODEL, OPTIMIZER):
        expected = manifest.files[name]
        regular(path / name, CheckpointError)
        try:
            size, digest = digest_of(path / name)
        except OSError as error:
            raise CheckpointError(f"cannot read {path / name}: {error.strerror or error}") from error
        if (size, digest) != (expected.bytes, expected.blake2b):
            short = size != expected.bytes
            problem = f"{size} bytes of {expected.bytes}" if short else "its content does not match its hash"
            raise CheckpointError(f"{path / name} is damaged: {problem}", hint=_instead_of(path))
        tensors[name] = {k: _checked(k, t, str(path / name)) for k, t in open_tensors(path / name).items()}
    metadata = manifest.model_dump(exclude={"format", "version", "step", "files", HASH}, exclude_unset=True)
    return StoredCheckpoint(manifest.step, tensors[MODEL], tensors[OPTIMIZER], metadata, manifest.files[MODEL].blake2b)


def _read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint folder, as it was written: by its own hash, and by the folder's name."""
    if odd := odd_entry(path):
        raise CheckpointError(f"{path} is refused: {odd}", hint="a checkpoint is of plain files")
    try:
        text = read_text(path / MANIFEST, CheckpointError, limit=JSON_BYTES)
        table = parse_json(text, path / MANIFEST, CheckpointError)
        manifest = fits(Manifest, table, path / MANIFEST, CheckpointError)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is not a Helix checkpoint: {error.message}", hint=_instead_of(path)) from error
    named = _NAME.match(path.resolve().name)
    problem = None
    # As it was written to the letter: another last digit of a float may be the same number, and is damage all the same.
    exact = text == _text(table)
    if (manifest.version > 1 or HASH in table) and (table.pop(HASH, None) != _digest(table) or not exact):
        problem = "its content does not match its hash"
    elif named and int(named[1]) != manifest.step:
        problem = f"it says step {manifest.step}, the folder's name says step {int(named[1])}"
    if problem:
        raise CheckpointError(f"{path / MANIFEST} is damaged: {problem}", hint=_instead_of(path))
    return manifest


def _text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, allow_nan=False)


def _digest(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _instead_of(path: Path) -> str:
    """What to do about a damaged checkpoint."""
    older = [other for other in checkpoints(path.parent) if other.name != path.name]
    older = [other for other in older if not _NAME.match(path.name) or step_of(other) < step_of(path)]
    if older:
        return f"take an older checkpoint of the run: {older[-1]}"
    return "the run has no older checkpoint: start it anew"


def _checked(name: str, tensor: Tensor | np.ndarray, where: str) -> Tensor:
    """The tensor; reading it raises CheckpointError if it holds a number that is not finite.

    Slots of an optimizer may be whole numbers too, which are.
    """
    tensor = of_array(tensor) if isinstance(tensor, np.ndarray) else tensor
    if tensor.code not in _FLOATS | _WHOLE:
        raise CheckpointError(f"{where}: {name} is of dtype {tensor.code}, which no checkpoint has")
    if tensor.code in _WHOLE:
        return tensor

    def read() -> np.ndarray:
        try:
            values = tensor.read()
        except OSError as error:
            raise CheckpointError(f"cannot read {tensor.origin}: {error.strerror or error}") from error
        if not all_finite(values, tensor.code):
            raise CheckpointError(
                f"{where}: {name} holds NaN or infinity", hint="a training that diverged is the cause"
            )
        return values

    return replace(tensor, read=read)


def all_finite(values: np.ndarray, code: str = "") -> bool:
    """Whether no value is NaN or infinite; `code` "BF16": values are the bits of bfloat16. Needs little memory."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, 1 << 20):
        part = flat[start : start + (1 << 20)]
        bad = (part & 0x7F80) == 0x7F80 if code == "BF16" else ~np.isfinite(part)
        if bad.any():
            return False
    return True


def step_of(path: Path) -> int:
    """The step in a checkpoint's name. Raises ValueError for another name."""
    found = _NAME.match(path.name)
    if not found:
        raise ValueError(f"{path.name} is not the name of a checkpoint")
    return int(found[1])


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.is_dir() and _NAME.match(p.name)), key=step_of)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint under `folder`, if any."""
    found = checkpoints(folder)
    return found[-1] if found else None


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in checkpoints(folder)[:-keep]:
        with contextlib.suppress(OSError):  # it costs room, no more
            remove(old)


def check_size(found: Mapping[str, Tensor | np.ndarray], model: ModelConfig, origin: Path | str) -> None:
    """Raise CheckpointError if a model is larger than its checkpoint, before the model is built: that takes memory."""
    longest = max((max(tensor.shape, default=1) for tensor in found.values()), default=0)
    if model.n_layers > len(found) or max(model.d_model, model.vocab_size) > longest:
        raise CheckpointError(
            f"{origin} does not fit the model: {len(found)} tensors of axes up to {longest} are none of n_layers = "
            f"{model.n_layers}, d_model = {model.d_model} and vocab_size = {model.vocab_size}"
        )


def check_params(found: Mapping[str, Tensor | np.ndarray], shapes: Mapping[str, tuple[int, ...]], origin: Path) -> None:
    """Raise CheckpointError unless `found` has exactly the parameters of the model, in their shapes."""
    problems = [f"missing {name}" for name in shapes if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in shapes]
    problems += [
        f"{name} is {tuple(found[name].shape)}, the model has {shape}"
        for name, shape in shapes.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{origin} does not fit the model: {shown}")
