"""A run's folder as it was at a step: what came later is set aside, as a run of its own, before the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helix_core.durable import atomic_folder, clear_leftovers
from helix_core.errors import CheckpointError
from helix_plugin_lm.runs.checkpoint import checkpoints, step_of
from helix_plugin_lm.runs.run_folder import RunFolder, write_bytes, write_text

SET_ASIDE = "set-aside-"


def rewind(run: RunFolder, step: int, *, ends: bool) -> None:
    """Make a run end at `step`, to go on from there; only for the process that holds its lock.

    Later checkpoints, and the whole curve that they are of, become the run `set-aside-1` (2, ...) inside it, which can
    be resumed too. `ends`: no steps are left, so that the last step's evaluation comes again. Warns (RuntimeWarning) if
    metrics.jsonl does not have every step up to `step` once.
    """
    for folder in (run.path, run.checkpoints, run.samples):
        clear_leftovers(folder)
    try:
        if later := [path for path in checkpoints(run.checkpoints) if step_of(path) > step]:
            _set_aside(run, step, later)
        run.summary_file.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot set aside what came after step {step}: {error.strerror or error}") from error
    kept = [
        line for line in run.metrics() if line["step"] <= step and ("loss" in line or not ends or line["step"] < step)
    ]
    if bad := _first_damaged(kept, step):
        warnings.warn(
            f"{run.metrics_file} does not have every step up to {step} once: it is damaged from step {bad} on; the "
            "run goes on, its curve stays incomplete",
            RuntimeWarning,
            stacklevel=2,
        )
    write_text(run.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))
    if run.events_file.exists():
        # A file of its own, of whole lines: what is appended belongs to this run alone.
        data = run.events_file.read_bytes()
        write_bytes(run.events_file, data[: data.rfind(b"\n") + 1])


def _first_damaged(lines: list[dict[str, Any]], last: int) -> int | None:
    """The first step that does not have one line of training, or more than one of evaluation; None if there is none."""
    due, held_out = 1, 0
    for line in lines:
        step = line["step"]
        if "loss" in line:
            if step != due:
                return due
            due += 1
        else:
            if step <= held_out:
                return held_out
            held_out = step
    return due if due <= last else None


def _set_aside(run: RunFolder, step: int, later: list[Path]) -> None:
    number = 1
    while os.path.lexists(run.path / f"{SET_ASIDE}{number}"):
        number += 1
    place = run.path / f"{SET_ASIDE}{number}"
    # The new run is whole before the first checkpoint moves, so a kill in between loses none.
    with atomic_folder(place) as temporary:
        for entry in _of_the_run(run):
            (shutil.copytree if entry.is_dir() else shutil.copyfile)(entry, temporary / entry.name)
        (temporary / run.checkpoints.name).mkdir()
        (temporary / run.samples.name).mkdir()
    for path in later:
        path.rename(place / run.checkpoints.name / path.name)
    for sample in run.samples.glob("step-*.txt") if run.samples.is_dir() else ():
        if sample.stem.removeprefix("step-").isdigit() and int(sample.stem.removeprefix("step-")) > step:
            sample.rename(place / run.samples.name / sample.name)
    print(
        f"set aside: {len(later)} checkpoints after step {step}, with their metrics, are now the run {place}",
        file=sys.stderr,
        flush=True,
    )


def _of_the_run(run: RunFolder) -> Iterator[Path]:
    """What a run folder holds besides checkpoints, samples, hidden files and runs that were set aside."""
    for entry in sorted(run.path.iterdir()):
        if entry not in (run.checkpoints, run.samples) and not entry.name.startswith((".", SET_ASIDE)):
            yield entry
