"""Which files a data source means."""

from __future__ import annotations

import glob
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from helix_core.errors import DataError

STDLIB = "stdlib"
_NOT_STDLIB = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}


def find_files(source: str | Iterable[str]) -> list[Path]:
    """The regular files of a source, sorted: a file, a folder (all files below it), a glob, 'stdlib', or several.

    Hidden files and folders are left out of folders. Raises DataError if a source names nothing.
    """
    sources = [source] if isinstance(source, str) else list(source)
    found: dict[Path, None] = {}
    for one in sources:
        files = _stdlib_files() if one == STDLIB else _files_of(one)
        if not files:
            raise DataError(f"no files in data source {one!r}", hint="give a file, a folder, a glob, or 'stdlib'")
        found.update(dict.fromkeys(files))
    return list(found)


def _stdlib_files() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = (path for path in root.rglob("*.py") if not _NOT_STDLIB.intersection(path.relative_to(root).parts))
    return sorted(path for path in files if path.is_file())


def _files_of(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        below = (p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts))
        return sorted(p for p in below if p.is_file())
    if not glob.has_magic(source):
        raise DataError(f"data source {source!r} does not exist", hint="give a file, a folder, a glob, or 'stdlib'")
    return sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
