"""Damaged files for every reader: each must be read or refused by a HelixError, within seconds and a gigabyte.

    python tests/fuzz/fuzz.py --inputs 100000            all readers, a table and a verdict
    python tests/fuzz/fuzz.py --reader settings          one of them
    python tests/fuzz/fuzz.py --reader settings --only 17   one input again: its traceback, and where it lies

Inputs are read in processes of their own, so that a crash or a hang is reported with the input that caused it.
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_readers import READERS

HERE = Path(__file__).parent
MOST_SECONDS, MOST_MEGABYTES = 10.0, 1024
"""Of one input."""
START_SECONDS = 600.0
"""Until a worker reads its first input."""
SHOWN = 5


@dataclass
class Result:
    """What became of a reader's inputs. `faults` are lines that say the input, and what it did."""

    reader: str
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: float = 0.0
    megabytes: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, index: int, what: str) -> None:
        self.counts["faults"] += 1
        self.faults.append(f"input {index}: {what}")


def fuzz(readers: list[str], inputs: int, seed: int = 0) -> list[Result]:
    """Have a worker read inputs 0..inputs-1 of readers; a new one goes on behind an input that ended the one before."""
    results = [Result(reader) for reader in readers]
    at = begin = 0
    while at < len(readers):
        at, begin = _run_worker(results, at, begin, inputs, seed)
    assert all(result.counts.total() == inputs for result in results), "an input was lost"
    return results


def _run_worker(results: list[Result], at: int, begin: int, end: int, seed: int) -> tuple[int, int]:
    """Read inputs until all are read or one ends the worker; the reader and the input to go on with."""
    work = _folder()
    command = [sys.executable, "-X", "faulthandler", str(HERE / "fuzz_worker.py")]
    command += [str(seed), str(begin), str(end), str(work / "files"), *(result.reader for result in results[at:])]
    with (work / "errors").open("w") as errors:
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        at, now, hung = at - 1, -1, False
        for line in _lines(worker):
            word, rest = line.split(" ", 1)
            if word == "reader":
                at, now = at + 1, -1
            elif word == "begin":
                now = int(rest)
            elif word == "hung":
                hung = True
                worker.kill()
            elif word == "end":
                _count(results[at], *rest.split(" ", 3))
                now = -1
        if worker.wait() == 0:
            return len(results), 0
        if now < 0:  # not by an input
            said = (work / "errors").read_text()[-2000:]
            why = f"began no input within {START_SECONDS:.0f} s" if hung else f"ended with {worker.returncode}"
            raise RuntimeError(f"the worker of {results[at].reader} {why}:\n{said}")
        what = f"no end after {2 * MOST_SECONDS:.0f} s" if hung else f"the process ended with {worker.returncode}"
        results[at].fault(now, what)
        return (at, now + 1) if now + 1 < end else (at + 1, 0)
    finally:
        worker.kill()
        worker.wait()
        shutil.rmtree(work, ignore_errors=True)


def _count(result: Result, index: str, seconds: str, megabytes: str, outcome: str) -> None:
    took, more = float(seconds), int(megabytes)
    result.seconds += took
    result.slowest, result.megabytes = max(result.slowest, took), max(result.megabytes, more)
    if outcome not in ("read", "refused"):
        result.fault(int(index), outcome)
    elif more > MOST_MEGABYTES:
        result.fault(int(index), f"took {more} MB")
    elif took > MOST_SECONDS:
        result.fault(int(index), f"took {took:.1f} s")
    else:
        result.counts[outcome] += 1


def _lines(worker: subprocess.Popen[bytes]) -> Iterable[str]:
    """Lines of a worker's output, until its end or until none comes for too long; then the last one is `hung 0`."""
    assert worker.stdout is not None
    pending, patience = b"", START_SECONDS
    with worker.stdout, selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        while selector.select(patience):
            data = os.read(worker.stdout.fileno(), 1 << 16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            if lines:  # of a reader, imports and a first compilation may take longer
                patience = 2 * MOST_SECONDS if lines[-1].startswith(b"begin") else START_SECONDS
            yield from (line.decode(errors="replace") for line in lines)
        yield "hung 0"


def _folder() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="helix-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))


HEAD = f"{'reader':<34} {'read':>7} {'refused':>8} {'faults':>7} {'s':>7} {'slowest s':>10} {'most MB':>8}"


def row(r: Result) -> str:
    """A line of the table, and the first faults below it."""
    counts = [r.counts[kind] for kind in ("read", "refused", "faults")]
    numbers = f"{counts[0]:>7} {counts[1]:>8} {counts[2]:>7} {r.seconds:>7.1f} {r.slowest:>10.3f} {r.megabytes:>8}"
    lines = [f"{r.reader:<34} {numbers}", *(f"    {fault}" for fault in r.faults[:SHOWN])]
    if len(r.faults) > SHOWN:
        lines.append(f"    and {len(r.faults) - SHOWN} more")
    return "\n".join(lines)


def verdict(results: list[Result]) -> str:
    """The closing line."""
    total = sum(sum(r.counts.values()) for r in results)
    faults = sum(r.counts["faults"] for r in results)
    found = "all were read or refused" if not faults else f"{faults} FAULTS"
    return (
        f"{total} inputs to {len(results)} readers: {found}; slowest {max(r.slowest for r in results):.2f} s, "
        f"most memory {max(r.megabytes for r in results)} MB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Damaged files for every reader.")
    parser.add_argument("--inputs", type=int, default=100_000, help="over all readers")
    parser.add_argument("--reader", action="append", choices=sorted(READERS), help="only this one; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one input of one reader, with a traceback")
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1))
    options = parser.parse_args()
    readers = options.reader or list(READERS)
    if options.only is not None:
        work = _folder()
        place = [str(options.seed), str(options.only), str(options.only + 1), str(work), readers[0], "--show"]
        print(f"the input is in {work / 'input'}", flush=True)
        return subprocess.call([sys.executable, str(HERE / "fuzz_worker.py"), *place])
    each = -(-options.inputs // len(readers))
    with ThreadPoolExecutor(options.processes) as pool:
        results = []
        print(HEAD, flush=True)
        for (result,) in pool.map(lambda reader: fuzz([reader], each, options.seed), readers):
            results.append(result)
            print(row(result), flush=True)
    print(verdict(results))
    return 1 if any(r.faults for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
