"""Results in one JSON file, written after every row, so that nothing finished is lost or done again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from helix_core.durable import write_file
from helix_core.errors import HelixError, InUse, UsageError
from helix_core.lock import FolderLock
from helix_core.untrusted import fits, read_json

Result = dict[str, Any]
PATIENCE = 30.0
"""Seconds to wait for another process that writes in the same folder: each holds it for a moment."""


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    row: str
    seed: int


class _Results(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    rows: list[_Row]


def read(file: Path) -> list[Result]:
    """The results in a file; none if there is no such file. Raises UsageError if it is something else."""
    if not file.exists():
        return []
    try:
        found = fits(_Results, read_json(file, UsageError, finite=False), file, UsageError)
    except UsageError as error:
        raise UsageError(
            f"{file} holds no results of `helix bench quality`: {error.message}", hint="name another file"
        ) from error
    return [row.model_dump() for row in found.rows]


def add(file: Path, result: Result) -> list[Result]:
    """Put a result in place of an older one of the same row and seed; the file is replaced in one piece.

    Processes that fill one file take turns. Raises HelixError if it cannot be written, UsageError if it is something
    else, InUse if another process holds the folder for more than `PATIENCE` seconds.
    """
    same = (result["row"], result["seed"])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _turn(file):
            kept = [row for row in read(file) if (row["row"], row["seed"]) != same]
            table = sorted([*kept, result], key=lambda row: (row["row"], row["seed"]))
            write_file(file, (json.dumps({"rows": table}, indent=1) + "\n").encode())
    except OSError as error:
        raise HelixError(f"cannot write the results to {file}: {error.strerror or error}") from error
    return table


@contextmanager
def _turn(file: Path) -> Iterator[None]:
    """The folder of a file, held alone."""
    until = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(FolderLock(file.parent, f"the results {file}"))
                break
            except InUse:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield
