"""A folder of arrays that survives a kill, a full disk, a truncated file and a second writer.

A store holds one generation, `gen-00000007`: safetensors files and a manifest with the size and hash of each. A save
writes the next generation aside, flushes it, renames it into place and only then removes the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from helix_core.durable import atomic_folder, clear_leftovers, odd_entry, remove
from helix_core.errors import MemoryStoreError
from helix_core.lock import FolderLock
from helix_core.untrusted import fits, parse_json, read_bytes, read_json, refusing, regular
from helix_plugin_lm.storage.tensor_file import digest_of, open_tensors

MANIFEST = "manifest.json"
_NAME = re.compile(r"^gen-\d{8,}$")
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


class Stored(NamedTuple):
    """What a store holds: its parts, its metadata and the number of the generation."""

    parts: dict[str, Any]
    metadata: dict[str, Any]
    generation: int


def save_store(
    path: str | Path, parts: Mapping[str, Part], metadata: Mapping[str, Any], *, after: int | None = None
) -> int:
    """Write parts (arrays by name, or bytes) and metadata (JSON) as the store's next generation; returns its number.

    after  the generation that the content grew from: a store that another writer has saved to since is not overwritten

    Raises MemoryStoreError if that fails, InUse while another process saves; the generation of before then stays.
    """
    from safetensors.numpy import save

    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FolderLock(folder, f"the memory {folder}", MemoryStoreError):
            _check_plain(folder)
            clear_leftovers(folder)
            old = _generations(folder)
            if after is not None and old and _number(old[-1]) != after:
                raise MemoryStoreError(
                    f"the memory {folder} was saved by another writer since it was loaded or saved here",
                    hint="load it again and add what is new, or save to another folder",
                )
            number = _number(old[-1]) + 1 if old else (after or 0) + 1
            with atomic_folder(folder / f"gen-{number:08d}") as temporary:
                files = {}
                for name, part in parts.items():
                    if isinstance(part, Mapping):
                        file, data = f"{name}.safetensors", save({k: np.ascontiguousarray(v) for k, v in part.items()})
                    else:
                        file, data = f"{name}.bin", part
                    (temporary / file).write_bytes(data)
                    files[file] = {"bytes": len(data), "blake2b": _digest(data)}
                manifest = {"format": "helix-memory", "version": 1, "files": files, "facts": dict(metadata)}
                text = json.dumps(manifest, sort_keys=True)
                outer = json.dumps({"manifest": text, "blake2b": _digest(text.encode())})
                (temporary / MANIFEST).write_text(outer, encoding="utf-8")
            for generation in old:
                with contextlib.suppress(OSError):  # it costs room, no more
                    remove(generation)
    except OSError as error:
        raise MemoryStoreError(
            f"cannot write the memory to {folder}: {error.strerror or error}",
            hint="the store of before is untouched; free some space and save again",
        ) from error
    return number


def load_store(path: str | Path) -> Stored:
    """The parts and metadata of a store's newest generation.

    Raises MemoryStoreError if there is none, if a file of it is truncated or altered, or if anything in it is a link.
    """
    folder = Path(path)
    while True:
        with refusing(folder, MemoryStoreError):
            generations = _generations(folder)
        if not generations:
            raise MemoryStoreError(f"{folder} is not a memory's store: it has no generation")
        _check_plain(folder)
        try:
            return _read_generation(generations[-1])
        except MemoryStoreError:
            # A writer may have replaced what was being read.
            if _generations(folder)[-1:] == generations[-1:]:
                raise


def _read_generation(newest: Path) -> Stored:
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
    return Stored(parts, manifest.facts, _number(newest))


def _manifest(path: Path) -> _Manifest:
    sealed = fits(_Sealed, read_json(path, MemoryStoreError), path, MemoryStoreError)
    if _digest(sealed.manifest.encode()) != sealed.blake2b:
        raise MemoryStoreError(f"{path} is damaged: its content does not match its hash")
    return fits(_Manifest, parse_json(sealed.manifest, path, MemoryStoreError), path, MemoryStoreError)


def _check_plain(folder: Path) -> None:
    if odd := odd_entry(folder):
        raise MemoryStoreError(f"the memory {folder} is refused: {odd}", hint="a store is of plain files and folders")


def _generations(folder: Path) -> list[Path]:
    """The generations of a store, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.is_dir() and _NAME.match(p.name)), key=_number)


def _number(generation: Path) -> int:
    return int(generation.name[4:])


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
