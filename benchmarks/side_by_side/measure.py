"""Taking samples of the sides of a row in turn, and only while the machine is quiet.

A side is measured in several processes, started anew, and its time is the median of theirs: processes of the same
program differ by up to a third, and one of them can meet a neighbour that the other side's did not.
"""

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
class Process:
    """The samples of one process, in seconds; `waited` is the share of them that its threads waited for a core."""

    seconds: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the quiet samples; of all if none was quiet."""
        return statistics.median(self.seconds or self.disturbed)


@dataclass
class Samples:
    """What was measured of one side."""

    processes: list[Process] = field(default_factory=list)
    peak: float = 0.0
    extra: float = 0.0
    error: float | None = None
    missing: str | None = None

    @property
    def quiet(self) -> bool:
        """Whether most of the processes have quiet samples."""
        return 2 * sum(bool(process.seconds) for process in self.processes) > len(self.processes)

    @property
    def medians(self) -> list[float]:
        """Of every process that has quiet samples; of every process if none has."""
        return [p.median for p in self.processes if p.seconds] or [p.median for p in self.processes]

    @property
    def median(self) -> float:
        return statistics.median(self.medians)

    @property
    def count(self) -> int:
        return sum(len(p.seconds) for p in self.processes) or sum(len(p.disturbed) for p in self.processes)

    @property
    def waited(self) -> float:
        return statistics.median(share for process in self.processes for share in process.waited)


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


def sample(side: Worker, of: Samples) -> None:
    """One sample of the newest process; it counts as quiet if nobody else had more than `FOREIGN` of a core."""
    ticks, began = busy_ticks(), time.perf_counter()
    answer = side.ask(f"run {side.count}")
    elapsed = time.perf_counter() - began
    # A tick of the clock is the least that can be seen.
    foreign = (busy_ticks() - ticks) / os.sysconf("SC_CLK_TCK") - answer["cpu"]
    quiet = foreign <= max(FOREIGN * elapsed, 2.5 / os.sysconf("SC_CLK_TCK"))
    into = of.processes[-1]
    (into.seconds if quiet else into.disturbed).append(answer["seconds"])
    into.waited.append(answer["waited"] / elapsed)
    of.peak, of.extra = max(of.peak, answer["peak"]), max(of.extra, answer["extra"])


def compare(row: Row, samples: int, patience: float, threads: int, processes: int) -> dict[str, Samples]:
    """Every side of a row, "ours" first: `processes` times, at least `samples` quiet samples each of a new process.

    `patience` seconds are waited for the quiet samples of one set of processes.
    """
    found = {name: Samples() for name in {"ours": row.ours, **row.peers}}
    for _ in range(processes):
        _compare_once(row, samples, patience, threads, found)
    return found


def _compare_once(row: Row, samples: int, patience: float, threads: int, found: dict[str, Samples]) -> None:
    with ExitStack() as stack:
        sides = {"ours": row.ours, **row.peers}
        workers: dict[str, Worker] = {}
        for name, side in sides.items():
            if found[name].missing is None:
                started = stack.enter_context(worker(side, threads))
                found[name].missing = started.missing
                if started.missing is None:
                    workers[name] = started
                    found[name].processes.append(Process())
        for name, started in workers.items():
            if not sides[name].once:
                warm = started.ask("run 1")["seconds"]
                if warm < SHORT:
                    warm = min(warm, started.ask("run 1")["seconds"])
                started.count = max(1, round(SHORT / max(warm, 1e-6)))
        deadline = time.perf_counter() + patience
        turns = 0

        def lacks(name: str) -> bool:
            return len(found[name].processes[-1].seconds) < samples

        while any(map(lacks, workers)) and (turns < 3 or time.perf_counter() < deadline):
            for name, started in workers.items():
                if lacks(name) or name == "ours":
                    sample(started, found[name])
            turns += 1
        results = {name: _saved(started) for name, started in workers.items() if sides[name].check}
    for name, arrays in results.items():
        if name != "ours" and "ours" in results:
            error = difference(results["ours"], arrays)
            found[name].error = max(error, found[name].error or 0.0)


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
