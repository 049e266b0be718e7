"""The file of a target: an object file for each kernel, with checksums, for exactly these sources.

A ZIP file with `index.json`: the target, the digest of the kernels' sources, and each object's name and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from helix_core.errors import HelixError
from helix_core.untrusted import parse_json

FOLDER = Path(__file__).parent
INDEX = "index.json"


class UnusableArchive(HelixError):
    """An archive, or an object in it, that must not be run; the text says why."""


def archive_of(target: str, folder: Path | None = None) -> Path:
    """Where a target's archive lies; in this package, unless another folder is named."""
    return (folder or FOLDER) / f"{target}.zip"


def write_archive(path: Path, target: str, sources: str, objects: Mapping[str, bytes]) -> None:
    """Write the objects of kernels, by name. The same objects make the same file."""
    kernels = {
        name: {"file": f"{number}.o", "sha256": hashlib.sha256(data).hexdigest()}
        for number, (name, data) in enumerate(sorted(objects.items()))
    }
    index = {"target": target, "sources": sources, "kernels": kernels}
    with zipfile.ZipFile(path, "w") as archive:
        _add(archive, INDEX, json.dumps(index, indent=1).encode())
        for name, entry in kernels.items():
            _add(archive, entry["file"], objects[name])


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, compresslevel=9)  # without the time of day


class Archive:
    """An archive opened for reading. Raises UnusableArchive if it is damaged, or made of other sources."""

    def __init__(self, path: Path, target: str, sources: str) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                index = parse_json(archive.read(INDEX), path, UnusableArchive)
            found = str(index["target"]), str(index["sources"])
            self._kernels = {name: (str(e["file"]), str(e["sha256"])) for name, e in index["kernels"].items()}
        except Exception as error:  # of a damaged file, zipfile and json raise anything
            raise UnusableArchive(f"{type(error).__name__}: {error}") from error
        if found != (target, sources):
            raise UnusableArchive("it was made of other sources" if found[0] == target else f"it is for {found[0]}")

    def __contains__(self, name: str) -> bool:
        return name in self._kernels

    def __len__(self) -> int:
        return len(self._kernels)

    def read(self, name: str) -> bytes:
        """Return a kernel's object file. Raises KeyError, or UnusableArchive if it is damaged."""
        file, checksum = self._kernels[name]
        try:
            with zipfile.ZipFile(self._path) as archive:
                data = archive.read(file)
        except Exception as error:
            raise UnusableArchive(f"{type(error).__name__}: {error}") from error
        if hashlib.sha256(data).hexdigest() != checksum:
            raise UnusableArchive(f"the code of {name} is damaged")
        return data
