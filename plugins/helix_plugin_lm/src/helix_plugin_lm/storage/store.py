"""A folder of arrays that survives a kill, a full disk and a truncated file.

A store holds one generation, `gen-00000007`: safetensors files and a manifest with the size and hash of each. A save
writes the next generation aside, flushes it, renames it into place and only then removes the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from helix_core.errors import MemoryStoreError
from helix_core.untrusted import fits, parse_json, read_bytes, read_json, refusing, regular
from helix_plugin_lm.storage.tensor_file import digest_of, open_tensors

MANIFEST = "manifest.json"
_NAME = re.compile(r"^gen-(\d{8})$")
Part = Mapping[str, np.ndarray] | bytes


class _File(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    bytes: int = Field(ge=0)
    blake2b: str


class _Manifest(BaseModel):
    """What a generation holds; files lie beside it."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: Literal["helix-memory"]
    version: Literal[1]
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.(safetensors|bin)$")], _File]
    facts: dict[str, Any]


class _Sealed(BaseModel):
    """A manifest as text, and its hash."""

    model_config = ConfigDict(strict=True, frozen=True)

    manifest: str
    blake2b: str


def save_store(path: str | Path, parts: Mapping[str, Part], facts: Mapping[str, Any]) -> None:
    """Write parts (arrays by name, or bytes) and facts (JSON) as the store's next generation.

    Raises MemoryStoreError if that fails; the generation of before then stays.
    """
    from safetensors.numpy import save

    folder = Path(path)
    aside = folder / f".writing-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".writing-*"):  # of a killed save
            shutil.rmtree(leftover, ignore_errors=True)
        old = _generations(folder)
        aside.mkdir()
        files = {}
        for name, part in parts.items():
            arrays = isinstance(part, Mapping)
            data = save({k: np.ascontiguousarray(v) for k, v in part.items()}) if isinstance(part, Mapping) else part
            file = f"{name}.safetensors" if arrays else f"{name}.bin"
            _write(aside / file, data)
            files[file] = {"bytes": len(data), "blake2b": _digest(data)}
        manifest = {"format": "helix-memory", "version": 1, "files": files, "facts": dict(facts)}
        text = json.dumps(manifest, sort_keys=True)
        _write(aside / MANIFEST, json.dumps({"manifest": text, "blake2b": _digest(text.encode())}).encode())
        _sync_folder(aside)
        number = int(old[-1].name[4:]) + 1 if old else 1
        aside.rename(folder / f"gen-{number:08d}")
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise MemoryStoreError(
            f"cannot write the memory to {folder}: {error.strerror or error}",
            hint="the store of before is untouched; free some space and save again",
        ) from error
    for generation in old:
        shutil.rmtree(generation, ignore_errors=True)


def load_store(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts and facts of a store's newest generation.

    Raises MemoryStoreError if there is none, or if a file of it is truncated or altered.
    """
    folder = Path(path)
    with refusing(folder, MemoryStoreError):
        generations = _generations(folder)
    if not generations:
        raise MemoryStoreError(f"{folder} is not a memory's store: it has no generation")
    newest = generations[-1]
    manifest = _manifest(newest / MANIFEST)
    parts: dict[str, Any] = {}
    for name, expected in manifest.files.items():
        file = newest / name
        size = regular(file, MemoryStoreError)
        if size != expected.bytes:
            raise MemoryStoreError(f"{file} is truncated: {size} bytes of {expected.bytes}")
        with refusing(file, MemoryStoreError):
            _, digest = digest_of(file)
        if digest != expected.blake2b:
            raise MemoryStoreError(f"{file} is damaged: its content does not match its hash")
        if file.suffix == ".safetensors":
            tensors = open_tensors(file, MemoryStoreError)
            with refusing(file, MemoryStoreError):
                parts[file.stem] = {key: tensor.numpy() for key, tensor in tensors.items()}
        else:
            parts[file.stem] = read_bytes(file, MemoryStoreError)
    return parts, manifest.facts


def _manifest(path: Path) -> _Manifest:
    sealed = fits(_Sealed, read_json(path, MemoryStoreError), path, MemoryStoreError)
    if _digest(sealed.manifest.encode()) != sealed.blake2b:
        raise MemoryStoreError(f"{path} is damaged: its content does not match its hash")
    return fits(_Manifest, parse_json(sealed.manifest, path, MemoryStoreError), path, MemoryStoreError)


def _generations(folder: Path) -> list[Path]:
    """The generations of a store, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and _NAME.match(p.name))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _write(path: Path, data: bytes) -> None:
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
