"""Which files a data source means."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from helix_core.errors import DataError
from helix_core.untrusted import refusing

STDLIB = "stdlib"
_NOT_STDLIB = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}
_OF_RUNS = ("recipe.toml", "events.jsonl"), ("recipe.toml", "checkpoints")
_KINDS = "give a file, a folder, a glob, or 'stdlib'"


def find_files(source: str | Iterable[str]) -> list[Path]:
    """The regular files of a source, as absolute paths: a file, a folder, a glob, 'stdlib', or several of these.

    A folder means all files below it, those behind links too; hidden files and folders are left out, and run folders:
    a run may lie in the folder that it learns from. A file that has several names is taken once, by the first.
    Raises DataError if a source names nothing, or if a part of it cannot be read.
    """
    sources = [source] if isinstance(source, str) else list(source)
    if not sources:
        raise DataError("no data source is given", hint=_KINDS)
    found: dict[tuple[int, int], Path] = {}
    for one in sources:
        with refusing(f"data source {one!r}", DataError, what="is no name of files", hint=None):
            files = _stdlib_files() if one == STDLIB else _files_of(one)
        if not files:
            raise DataError(f"no files in data source {one!r}", hint=_KINDS)
        for file in files:
            status = os.stat(file)
            found.setdefault((status.st_dev, status.st_ino), Path(file))
    return list(found.values())


def absolute_source(source: str) -> str:
    """The same source, named so that it means the same from any folder. Raises DataError if it cannot mean any."""
    return source if source == STDLIB else absolute_path(source, "data source")


def absolute_path(path: str, what: str) -> str:
    """The absolute path of one that may begin with `~`. Raises DataError, saying what it is, if it cannot be one."""
    if not path or "\0" in path:
        raise DataError(f"{path!r} is no {what}", hint=_KINDS if what == "data source" else None)
    try:
        return os.path.abspath(os.path.expanduser(path))
    except OSError as error:
        raise DataError(f"cannot find {what} {path!r}: the working folder is gone", hint="cd to another") from error


def _stdlib_files() -> list[str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = (path for path in root.rglob("*.py") if not _NOT_STDLIB.intersection(path.relative_to(root).parts))
    return sorted(str(path) for path in files if path.is_file())


def _files_of(source: str) -> list[str]:
    path = absolute_source(source)
    mode = _mode(path)
    if mode is None and glob.has_magic(path):
        parts = Path(path).parts
        first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        folder = os.path.join(*parts[:first])
        return sorted(set(_matching(folder, parts[first:]))) if os.path.isdir(folder) else []
    if mode is None:
        raise DataError(f"data source {source!r} does not exist", hint=_KINDS)
    if stat.S_ISDIR(mode):
        return sorted(path for _, entries in _walk(path) for path, mode in entries if stat.S_ISREG(mode))
    if not stat.S_ISREG(mode):
        raise DataError(f"data source {source!r} is neither a file nor a folder", hint=_KINDS)
    return [path]


def _matching(folder: str, patterns: tuple[str, ...]) -> Iterator[str]:
    """The files below a folder of which each level's name fits a pattern; `**` stands for any number of levels."""
    pattern, *others = patterns
    rest = tuple(others)
    if pattern == "**":
        for below, _ in _walk(folder):
            yield from _matching(below, rest or ("*",))
        return

    def wanted(name: str) -> bool:
        return fnmatch.fnmatch(name, pattern) and (_visible(name) or not _visible(pattern))

    for path, mode in _entries(folder, wanted):
        if rest and stat.S_ISDIR(mode):
            yield from _matching(path, rest)
        elif not rest and stat.S_ISREG(mode):
            yield path


def _walk(root: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """A folder and all visible ones below it, with what is in each.

    Links are followed, but each folder is visited once, by whatever name it has: a loop of links ends.
    """
    waiting, seen = [root], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            entries = _entries(folder, _visible)
            yield folder, entries
            waiting += [path for path, mode in reversed(entries) if stat.S_ISDIR(mode)]


def _entries(folder: str, wanted: Callable[[str], bool]) -> list[tuple[str, int]]:
    """What is in a folder under a wanted name, sorted, with its mode; but no run folders."""
    try:
        paths = sorted(entry.path for entry in os.scandir(folder) if wanted(entry.name))
    except OSError as error:
        raise DataError(
            f"cannot read folder {folder}: {error.strerror or error}",
            hint="make it readable, or name what is to be read by a glob",
        ) from error
    found = []
    for path in paths:
        mode = _mode(path)
        if mode is None:
            raise DataError(f"{path} is a link to nothing", hint="restore what it links to, or remove it")
        if not (stat.S_ISDIR(mode) and _is_run(path)):
            found.append((path, mode))
    return found


def _visible(name: str) -> bool:
    return not name.startswith(".")


def _is_run(folder: str) -> bool:
    return any(all(os.path.lexists(os.path.join(folder, name)) for name in names) for names in _OF_RUNS)


def _mode(path: str) -> int | None:
    """What kind of thing is at a path; None if nothing is. Raises DataError if that cannot be found out."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
