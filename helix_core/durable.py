"""Files and folders that are whole or absent, after a kill, on a full disk or in a folder that a stranger made.

What is written goes aside under a hidden name, is flushed to disk and then renamed into place. A link that stands
where something is written is replaced; nothing is ever written through it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".writing-"


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A new folder that takes the name `final` once the block is done; if that fails, nothing stays behind.

    Raises OSError if it cannot be written, or if something is at `final` then.
    """
    temporary = _temporary(final)
    remove(temporary)
    temporary.mkdir()
    try:
        yield temporary
        for parent, _, files in os.walk(temporary):
            for name in files:
                _sync(Path(parent, name))
            _sync(Path(parent))
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        temporary.rename(final)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise
    _sync(final.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file, or replace it in one step; a reader never meets half of it.

    Raises OSError if it cannot be written, or if a folder, a device or a pipe is in its place.
    """
    if os.path.lexists(path) and not (path.is_symlink() or path.is_file()):
        raise OSError(errno.EINVAL, "there is something that is no plain file", str(path))
    temporary = _temporary(path)
    remove(temporary)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise
    _sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a folder, if there is one; no half of it keeps its name.

    Raises OSError if it cannot be removed.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if not path.name.startswith(TEMPORARY):
        path = path.rename(path.with_name(f"{TEMPORARY}{path.name}-removed-{os.getpid()}"))
    shutil.rmtree(path)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder; only for the one process that writes there."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            remove(leftover)


def odd_entry(folder: Path) -> str | None:
    """What a folder, with all below it, holds besides plain files and folders: a link leads out of it, a pipe hangs.

    None if there is nothing of the kind. The folder itself may be reached through a link.
    """
    kinds = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            try:
                kind = stat.S_IFMT(path.lstat().st_mode)
            except FileNotFoundError:  # whoever writes there removed it meanwhile
                continue
            if kind not in (stat.S_IFREG, stat.S_IFDIR):
                return f"{path.relative_to(folder)} is a {kinds.get(kind, 'device')}"
    return None


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")


def _sync(path: Path) -> None:
    """Make what was written, or a rename in a folder, last through a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folder
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder, and lose nothing but that; others report a full disk only here.
        if not path.is_dir():
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
