"""Taking samples of the sides of a row in turn, and only while the machine is quiet."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from side_by_side.row import Row, Side

HERE = Path(__file__).resolve().parent.parent
SHORT = 0.15
"""Seconds of a sample: quicker work is done several times, and once before, to fill the caches."""

FOREIGN = 0.08
"""Of a core, that other processes may use while a sample counts."""


@dataclass
class Samples:
    """What was measured of one side."""

    seconds: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)
    peak: float = 0.0
    extra: float = 0.0
    error: float | None = None
    missing: str | None = None

    @property
    def quiet(self) -> bool:
        return bool(self.seconds)

    @property
    def median(self) -> float:
        """Of the quiet samples; of all if none was quiet."""
        return statistics.median(self.seconds or self.disturbed)


class Worker:
    """A side's process."""

    def __init__(self, side: Side, threads: int) -> None:
        environment = {
            **os.environ,
            **side.env,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": str(HERE),
            "PYTHONWARNINGS": "ignore",
        }
        command = [sys.executable, "-m", "side_by_side.worker", json.dumps(asdict(side))]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.count = 1
        self.missing = self._answer().get("missing")

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended without an answer: exit code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def worker(side: Side, threads: int) -> Iterator[Worker]:
    process = Worker(side, threads)
    try:
        yield process
    finally:
        process.close()


def busy_ticks() -> float:
    """Clock ticks that all cores have spent working, for anybody, and that other machines took from this one."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, soft, steal = fields
    return user + nice + system + irq + soft + steal


def sample(side: Worker, into: Samples) -> None:
    """One sample; it counts as quiet if nobody else had more than `FOREIGN` of a core."""
    ticks, began = busy_ticks(), time.perf_counter()
    answer = side.ask(f"run {side.count}")
    elapsed = time.perf_counter() - began
    # A tick of the clock is the least that can be seen.
    foreign = (busy_ticks() - ticks) / os.sysconf("SC_CLK_TCK") - answer["cpu"]
    quiet = foreign <= max(FOREIGN * elapsed, 2.5 / os.sysconf("SC_CLK_TCK"))
    (into.seconds if quiet else into.disturbed).append(answer["seconds"])
    into.peak, into.extra = max(into.peak, answer["peak"]), max(into.extra, answer["extra"])


def compare(row: Row, samples: int, patience: float, threads: int) -> dict[str, Samples]:
    """Every side of a row, "ours" first: at least `samples` quiet samples each, or until `patience` seconds."""
    found: dict[str, Samples] = {}
    with ExitStack() as stack:
        sides = {"ours": row.ours, **row.peers}
        workers: dict[str, Worker] = {}
        for name, side in sides.items():
            found[name] = Samples()
            started = stack.enter_context(worker(side, threads))
            found[name].missing = started.missing
            if started.missing is None:
                workers[name] = started
        for name, started in workers.items():
            if not sides[name].once:
                warm = started.ask("run 1")["seconds"]
                warm = min(warm, started.ask("run 1")["seconds"])
                started.count = max(1, round(SHORT / max(warm, 1e-6)))
        deadline = time.perf_counter() + patience
        turns = 0
        while any(len(found[name].seconds) < samples for name in workers) and (
            turns < 3 or time.perf_counter() < deadline
        ):
            for name, started in workers.items():
                if len(found[name].seconds) < samples or name == "ours":
                    sample(started, found[name])
            turns += 1
        results = {name: _saved(started) for name, started in workers.items() if sides[name].check}
    for name, arrays in results.items():
        if name != "ours" and "ours" in results:
            found[name].error = difference(results["ours"], arrays)
    return found


def _saved(side: Worker) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.npz"
        side.ask(f"save {file}")
        with np.load(file) as arrays:
            return [arrays[name] for name in arrays.files]


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest difference of any array, relative to that array's largest value."""
    if len(ours) != len(theirs):
        raise ValueError(f"ours returned {len(ours)} arrays and the peer {len(theirs)}")
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"ours returned shape {a.shape} and the peer {b.shape}")
        scale = float(np.max(np.abs(b), initial=1e-30))
        worst = max(worst, float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0)) / scale)
    return worst
