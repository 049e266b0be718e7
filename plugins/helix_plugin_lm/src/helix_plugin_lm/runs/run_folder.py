"""A run's folder: its resolved recipe, metrics, events, checkpoints, samples, plot and summary."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from helix_core.errors import CheckpointError, UsageError
from helix_plugin_lm.runs.checkpoint import latest_checkpoint
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
        """An existing run. Raises UsageError if `path` is none."""
        run = cls(Path(path))
        if not run.recipe_file.is_file():
            raise UsageError(f"{path} is not a run folder: it has no {run.recipe_file.name}")
        return run

    @classmethod
    def locate(cls, path: str | Path) -> tuple[RunFolder, Path]:
        """A run and its newest checkpoint, or that of its checkpoints which `path` is.

        Raises UsageError if `path` is neither, CheckpointError if the run has no checkpoint.
        """
        path = Path(path)
        is_checkpoint = (path / "manifest.json").exists()
        run = cls.open(path.resolve().parent.parent if is_checkpoint else path)
        return run, path if is_checkpoint else run.latest_checkpoint()

    def take_companions(self, other: RunFolder) -> None:
        """Copy what belongs to another run's parameters: their tokenizer, and where they came from."""
        for name in COMPANIONS:
            place = other.path / name
            if place.is_dir():
                shutil.copytree(place, self.path / name)
            elif place.is_file():
                shutil.copyfile(place, self.path / name)

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def plot_file(self) -> Path:
        return self.path / "loss.png"

    def spec(self) -> RunSpec:
        """What the recipe says about the model. Raises ConfigError if the recipe cannot be read."""
        return read_spec(self.recipe_file)

    def write_recipe(self, text: str) -> None:
        """Write the run's recipe, in TOML."""
        write_text(self.recipe_file, text)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_text(self.summary_file, json.dumps(summary, indent=2) + "\n")

    def latest_checkpoint(self) -> Path:
        """The newest checkpoint. Raises CheckpointError if the run has none yet."""
        found = latest_checkpoint(self.checkpoints)
        if found is None:
            raise CheckpointError(f"run {self.path} has no checkpoint yet")
        return found

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut off by a kill is left out."""
        if self.metrics_file.exists():
            for line in self.metrics_file.read_text().splitlines():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    return

    def truncate_metrics(self, step: int) -> None:
        """Forget what came after `step`, so that a resumed run writes one curve."""
        kept = [json.dumps(line) for line in self.metrics() if line["step"] <= step]
        write_text(self.metrics_file, "".join(line + "\n" for line in kept))


class JsonLines:
    """Append JSON objects to a file, a line each, flushed at once."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, **data: Any) -> None:
        self._file.write(json.dumps(data) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step, so that a reader or a kill never meets half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}", hint="free some space") from error
