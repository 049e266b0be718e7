"""Checkpoints that survive a kill, a full disk and a truncated file.

A checkpoint is a folder `step-00000500` of safetensors and a manifest with the size and hash of each file. It is
written aside, flushed to disk and renamed into place, so a folder of that name is always whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.errors import CheckpointError
from helix_plugin_lm.storage.tensor_file import Tensor, digest_of, open_tensors, write_tensors

MODEL, OPTIMIZER, MANIFEST = "model.safetensors", "optimizer.safetensors", "manifest.json"
_NAME = re.compile(r"^step-(\d{8})$")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: parameters, optimizer moments by `slot/parameter`, and facts about the run."""

    step: int
    params: dict[str, np.ndarray]
    moments: dict[str, np.ndarray]
    facts: dict[str, Any]


@dataclass(frozen=True)
class StoredCheckpoint:
    """A verified checkpoint whose tensors are read one at a time."""

    step: int
    params: dict[str, Tensor]
    moments: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    params: Mapping[str, Tensor | np.ndarray],
    moments: Mapping[str, Tensor | np.ndarray],
    facts: Mapping[str, Any],
) -> Path:
    """Write the checkpoint of `step` under `folder`; the ones already there are not touched.

    Raises CheckpointError if it cannot be written, a full disk for instance; nothing half-written stays behind.
    """
    final = folder / f"step-{step:08d}"
    aside = folder / f".writing-{final.name}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".writing-*"):  # of a killed run
            shutil.rmtree(leftover, ignore_errors=True)
        aside.mkdir()
        files = {}
        for name, tensors in ((MODEL, params), (OPTIMIZER, moments)):
            size, digest = write_tensors(aside / name, tensors)
            files[name] = {"bytes": size, "blake2b": digest}
        manifest = {"format": "helix-checkpoint", "version": 1, "step": step, "files": files, **facts}
        _write_synced(aside / MANIFEST, json.dumps(manifest, indent=1).encode())
        _sync_folder(aside)
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        kept = latest_checkpoint(folder)
        raise CheckpointError(
            f"cannot write checkpoint {final}: {error.strerror or error}",
            hint=f"{kept.name} is kept; free some space and resume" if kept else "free some space and try again",
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
    return Checkpoint(stored.step, params, moments, stored.facts)


def open_checkpoint(path: Path) -> StoredCheckpoint:
    """Verify one checkpoint folder, without reading all of it into memory; raises what `load_checkpoint` does."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest.get("format") != "helix-checkpoint":
            raise ValueError("its manifest is not one")
        listed = {name: manifest["files"][name] for name in (MODEL, OPTIMIZER)}
        step = int(manifest["step"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a Helix checkpoint: {error}") from error
    tensors = {}
    for name, expected in listed.items():
        try:
            size, digest = digest_of(path / name)
        except OSError as error:
            raise CheckpointError(f"cannot read {path / name}: {error.strerror or error}") from error
        if size != expected["bytes"] or digest != expected["blake2b"]:
            raise CheckpointError(
                f"{path / name} is damaged: {size} bytes of {expected['bytes']}"
                if size != expected["bytes"]
                else f"{path / name} is damaged: its content does not match its hash",
                hint="resume from an older checkpoint of the run: `--resume RUN/checkpoints/step-...`",
            )
        tensors[name] = open_tensors(path / name)
    facts = {k: v for k, v in manifest.items() if k not in ("format", "version", "step", "files")}
    return StoredCheckpoint(step, tensors[MODEL], tensors[OPTIMIZER], facts)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and _NAME.match(p.name))


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint under `folder`, if any."""
    found = checkpoints(folder)
    return found[-1] if found else None


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


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


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Makes a rename durable; some file systems and Windows cannot, and lose nothing but that.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
