"""Results in one JSON file, written after every row, so that nothing finished is lost or done again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from helix_core.errors import UsageError
from helix_core.untrusted import fits, read_json

Result = dict[str, Any]


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
    """Put a result in place of an older one of the same row and seed; the file is replaced in one piece."""
    same = (result["row"], result["seed"])
    kept = [row for row in read(file) if (row["row"], row["seed"]) != same]
    table = sorted([*kept, result], key=lambda row: (row["row"], row["seed"]))
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"rows": table}, indent=1) + "\n")
    temporary.replace(file)
    return table
