"""A run's folder: its resolved recipe, metrics, events, checkpoints, samples, plot and summary."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helix_core.durable import odd_entry, write_file
from helix_core.errors import CheckpointError, UsageError
from helix_core.lock import FolderLock
from helix_core.untrusted import AGAIN, parse_json, read_bytes, read_json
from helix_plugin_lm.runs.checkpoint import MANIFEST, latest_checkpoint, step_of
from helix_plugin_lm.runs.spec import RunSpec, read_spec

COMPANIONS = ("tokenizer.json", "huggingface")


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: Path, name: str) -> RunFolder:
        """A new folder `parent/name-DATE-TIME`. Raises UsageError if it cannot be made."""
        stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for number in range(1000):
                path = parent / (stem if not number else f"{stem}-{number}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path)
        except OSError as error:
            raise UsageError(f"cannot make a run folder under {parent}: {error.strerror or error}") from error
        raise UsageError(f"too many runs named {stem} under {parent}")

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run. Raises UsageError if `path` is none, or holds links, pipes or devices."""
        run = cls(Path(path))
        if not run.recipe_file.is_file():
            raise UsageError(
                f"{path} is not a run folder: it has no {run.recipe_file.name}",
                hint="one that was killed before it was written had not begun: start it anew",
            )
        if odd := odd_entry(run.path):
            raise UsageError(
                f"run {path} is refused: {odd}",
                hint="a run folder is of plain files and folders; nothing is followed out of one that others made",
            )
        return run

    @classmethod
    def locate(cls, path: str | Path) -> tuple[RunFolder, Path]:
        """A run and its newest checkpoint, or that of its checkpoints which `path` is.

        Raises UsageError if `path` is neither, CheckpointError if the run has no checkpoint.
        """
        run, checkpoint = cls.find(path)
        return run, checkpoint or run.latest_checkpoint()

    @classmethod
    def find(cls, path: str | Path) -> tuple[RunFolder, Path | None]:
        """A run, and that of its checkpoints which `path` is, if it is one. Raises UsageError if it is neither."""
        path = Path(path)
        if not is_checkpoint(path):
            return cls.open(path), None
        named, real = path.parent.parent, path.resolve().parent.parent
        # Messages name the run as the user did, where that is the run.
        return cls.open(named if named.exists() and named.samefile(real) else real), path

    def take_companions(self, other: RunFolder) -> None:
        """Copy what belongs to another run's parameters: their tokenizer, and where they came from.

        Raises CheckpointError if it cannot be written.
        """
        try:
            for name in COMPANIONS:
                place = other.path / name
                if place.is_dir():
                    shutil.copytree(place, self.path / name)
                elif place.is_file():
                    shutil.copyfile(place, self.path / name)
        except OSError as error:
            raise CheckpointError(f"cannot copy {other.path} to {self.path}: {error.strerror or error}") from error

    @property
    def recipe_file(self) -> Path:
        """The recipe that the run carries out."""
        return self.path / "recipe.toml"

    @property
    def metrics_file(self) -> Path:
        """A line of JSON for every step and evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def events_file(self) -> Path:
        """A line of JSON for every other event."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """The folder of generated texts."""
        return self.path / "samples"

    @property
    def summary_file(self) -> Path:
        """What the finished run reached."""
        return self.path / "summary.json"

    @property
    def plot_file(self) -> Path:
        """The picture of the losses."""
        return self.path / "loss.png"

    def spec(self) -> RunSpec:
        """What the recipe says about the model. Raises ConfigError if the recipe cannot be read."""
        return read_spec(self.recipe_file)

    def write_recipe(self, text: str) -> None:
        """Write the run's recipe, in TOML."""
        write_text(self.recipe_file, text)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the summary; NaN becomes null."""
        write_text(self.summary_file, json.dumps(_without_nan(summary), indent=2) + "\n")

    def finished_at(self) -> int | None:
        """The step at which the run was finished, from its summary; None if it was not, or has gone on since."""
        try:
            step = self.summary().get("steps")
        except CheckpointError:
            return None
        return step if type(step) is int else None

    def lock(self) -> FolderLock:
        """For whoever writes in the folder. Entering it raises InUse while another process does."""
        return FolderLock(self.path, f"run {self.path}", CheckpointError)

    def summary(self) -> dict[str, Any]:
        """What `write_summary` wrote. Raises CheckpointError if it is missing or damaged."""
        summary = read_json(self.summary_file, CheckpointError, finite=False)
        if not isinstance(summary, dict):
            raise CheckpointError(f"{self.summary_file} is damaged: it is no table", hint=AGAIN)
        return summary

    def latest_checkpoint(self) -> Path:
        """The newest checkpoint. Raises CheckpointError if the run has none yet."""
        found = latest_checkpoint(self.checkpoints)
        if found is None:
            raise CheckpointError(f"run {self.path} has no checkpoint yet")
        return found

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl in order; those that a kill or a damaged disk has spoilt are left out."""
        if not self.metrics_file.exists():
            return
        for line in read_bytes(self.metrics_file, CheckpointError).split(b"\n"):
            try:
                found = parse_json(line, self.metrics_file, CheckpointError, finite=False)
            except CheckpointError:
                continue
            if isinstance(found, dict) and type(found.get("step")) is int:
                yield found


class JsonLines:
    """Append JSON objects to a file, a line each, written at once; numbers that are not finite become null.

    Raises CheckpointError if the file cannot be written; a line is then there whole or not at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, **data: Any) -> None:
        """Append a line, whole or not at all."""
        text = (json.dumps(_without_nan(data), allow_nan=False) + "\n").encode()
        size = os.fstat(self._file.fileno()).st_size
        try:
            while text:
                text = text[self._file.write(text) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            raise self._failed(error) from error

    def sync(self) -> None:
        """Make what was written last through a power cut."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _failed(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"cannot write {self.path}: {error.strerror or error}", hint=_what_helps(self.path))


def is_checkpoint(path: Path) -> bool:
    """Whether a path is that of a checkpoint, whole or damaged, rather than of a run."""
    try:
        step_of(path)
    except ValueError:
        return (path / MANIFEST).exists()
    return path.is_dir()


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file in one step. Raises CheckpointError if it cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a file in one step. Raises CheckpointError if it cannot be written."""
    try:
        write_file(path, data)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}", hint=_what_helps(path)) from error


def _what_helps(path: Path) -> str:
    return "free some space" if path.parent.is_dir() else f"{path.parent} is gone: start the run anew"


def _without_nan(value: Any) -> Any:
    """The same data with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, (list, tuple)) else value
