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
from typing import Any, NamedTuple

import numpy as np

from helix_core.durable import clear_leftovers, folder_aside, odd_entry, remove
from helix_core.errors import MemoryStoreError
from helix_core.lock import FolderLock

MANIFEST = "manifest.json"
_NAME = re.compile(r"^gen-\d{8,}$")
Part = Mapping[str, np.ndarray] | bytes


class Stored(NamedTuple):
    """What a store holds: its parts, its facts and the number of the generation."""

    parts: dict[str, Any]
    facts: dict[str, Any]
    generation: int


def save_store(
    path: str | Path, parts: Mapping[str, Part], facts: Mapping[str, Any], *, after: int | None = None
) -> int:
    """Write parts (arrays by name, or bytes) and facts (JSON) as the store's next generation; returns its number.

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
            with folder_aside(folder / f"gen-{number:08d}") as aside:
                files = {}
                for name, part in parts.items():
                    if isinstance(part, Mapping):
                        file, data = f"{name}.safetensors", save({k: np.ascontiguousarray(v) for k, v in part.items()})
                    else:
                        file, data = f"{name}.bin", part
                    (aside / file).write_bytes(data)
                    files[file] = {"bytes": len(data), "blake2b": _digest(data)}
                manifest = {"format": "helix-memory", "version": 1, "files": files, "facts": dict(facts)}
                text = json.dumps(manifest, sort_keys=True)
                outer = json.dumps({"manifest": text, "blake2b": _digest(text.encode())})
                (aside / MANIFEST).write_text(outer, encoding="utf-8")
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
    """The parts and facts of a store's newest generation.

    Raises MemoryStoreError if there is none, if a file of it is truncated or altered, or if anything in it is a link.
    """
    folder = Path(path)
    while True:
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
    from safetensors.numpy import load

    try:
        outer = json.loads((newest / MANIFEST).read_bytes())
        text = outer["manifest"]
        if _digest(text.encode()) != outer["blake2b"]:
            raise ValueError("its content does not match its hash")
        manifest = json.loads(text)
        if manifest["format"] != "helix-memory" or manifest["version"] != 1:
            raise ValueError(f"it is {manifest['format']} version {manifest['version']}")
        if any(Path(name).name != name for name in manifest["files"]):
            raise ValueError("it names files outside its folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MemoryStoreError(f"{newest / MANIFEST} is damaged or not a memory's: {error}") from error
    parts: dict[str, Any] = {}
    for name, expected in manifest["files"].items():
        file = newest / name
        try:
            data = file.read_bytes()
        except OSError as error:
            raise MemoryStoreError(f"cannot read {file}: {error.strerror or error}") from error
        if len(data) != expected["bytes"]:
            raise MemoryStoreError(f"{file} is truncated: {len(data)} bytes of {expected['bytes']}")
        if _digest(data) != expected["blake2b"]:
            raise MemoryStoreError(f"{file} is damaged: its content does not match its hash")
        parts[Path(name).stem] = load(data) if name.endswith(".safetensors") else data
    return Stored(parts, manifest["facts"], _number(newest))


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
