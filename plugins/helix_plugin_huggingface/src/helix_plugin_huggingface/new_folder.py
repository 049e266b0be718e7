"""Folders that are whole or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helix_core.durable import atomic_folder
from helix_core.errors import CheckpointError, UsageError


def check_free(out: Path, option: str = "--out") -> None:
    """Raise UsageError if something is at `out` already."""
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists already", hint=f"remove it, or give another {option}")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A new folder that gets the name `out` once the block is done; whatever stops it, nothing stays behind.

    Raises UsageError if `out` exists, CheckpointError if the disk is full or cannot be written.
    """
    check_free(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(out) as temporary:
            yield temporary
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error.strerror or error}", hint="nothing was left") from error
