"""Results in one JSON file, written after every row, so that nothing finished is lost or done again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from helix_core.errors import UsageError

Result = dict[str, Any]


def read(file: Path) -> list[Result]:
    """The results in a file; none if there is no such file. Raises UsageError if it is something else."""
    if not file.exists():
        return []
    try:
        found = json.loads(file.read_text())["rows"]
        assert all(isinstance(row["row"], str) and isinstance(row["seed"], int) for row in found)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UsageError(f"{file} holds no results of `helix bench quality`", hint="name another file") from error
    return list(found)


def add(file: Path, result: Result) -> list[Result]:
    """Put a result in place of an older one of the same row and seed; the file is replaced in one piece."""
    same = (result["row"], result["seed"])
    kept = [row for row in read(file) if (row["row"], row["seed"]) != same]
    table = sorted([*kept, result], key=lambda row: (row["row"], row["seed"]))
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(json.dumps({"rows": table}, indent=1) + "\n")
    aside.replace(file)
    return table
