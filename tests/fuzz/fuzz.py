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
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_readers import READERS

HERE = Path(__file__).parent
MOST_SECONDS, MOST_MEGABYTES = 10.0, 1024
"""Of one input."""
START_SECONDS = 240.0
"""Of a worker, whose imports and compilations may take long."""
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


def fuzz(reader: str, inputs: int, seed: int = 0) -> Result:
    """Have a worker read inputs 0..inputs-1; a new one goes on behind an input that ended the one before."""
    result, begin, started = Result(reader), 0, time.perf_counter()
    while begin < inputs:
        begin = _run_worker(result, begin, inputs, seed)
    result.seconds = time.perf_counter() - started
    return result


def _run_worker(result: Result, begin: int, end: int, seed: int) -> int:
    """Read inputs until all are read or one ends the worker; the input to go on with."""
    work = _folder()
    command = [sys.executable, "-X", "faulthandler", str(HERE / "fuzz_worker.py")]
    command += [result.reader, str(seed), str(begin), str(end), str(work)]
    with (work / "errors").open("w") as errors:
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        now: int | None = None
        for line in _lines(worker):
            word, index, *rest = line.split(" ", 4)
            if word == "begin":
                now = int(index)
            elif word == "end":
                begin = int(index) + 1
                _count(result, begin - 1, float(rest[0]), int(rest[1]), rest[2])
        hung = worker.poll() is None and begin < end
        if hung:
            worker.kill()
        worker.wait()
        if begin == end and not worker.returncode:
            return end
        if now is None or now < begin:  # not by an input
            said = (work / "errors").read_text()[-2000:]
            raise RuntimeError(f"the worker of {result.reader} ended with {worker.returncode}:\n{said}")
        what = f"no end after {2 * MOST_SECONDS:.0f} s" if hung else f"the process ended with {worker.returncode}"
        result.counts["faults"] += 1
        result.faults.append(f"input {now}: {what}")
        return now + 1
    finally:
        worker.kill()
        worker.wait()
        shutil.rmtree(work, ignore_errors=True)


def _count(result: Result, index: int, seconds: float, megabytes: int, outcome: str) -> None:
    result.slowest, result.megabytes = max(result.slowest, seconds), max(result.megabytes, megabytes)
    if outcome not in ("read", "refused"):
        result.faults.append(f"input {index}: {outcome}")
    elif seconds > MOST_SECONDS:
        result.faults.append(f"input {index}: took {seconds:.1f} s")
    elif megabytes > MOST_MEGABYTES:
        result.faults.append(f"input {index}: took {megabytes} MB")
    else:
        result.counts[outcome] += 1
        return
    result.counts["faults"] += 1


def _lines(worker: subprocess.Popen[bytes]) -> Iterable[str]:
    """Lines of a worker's output, until its end or until none comes for too long."""
    assert worker.stdout is not None
    pending, patience = b"", START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        while selector.select(patience):
            data = os.read(worker.stdout.fileno(), 1 << 16)
            if not data:
                return
            patience = 2 * MOST_SECONDS
            *lines, pending = (pending + data).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)


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
        place = [str(options.seed), str(options.only), str(options.only + 1), str(work), "--show"]
        print(f"the input is in {work / 'input'}", flush=True)
        return subprocess.call([sys.executable, str(HERE / "fuzz_worker.py"), readers[0], *place])
    each = -(-options.inputs // len(readers))
    with ThreadPoolExecutor(options.processes) as pool:
        results = []
        print(HEAD, flush=True)
        for result in pool.map(lambda reader: fuzz(reader, each, options.seed), readers):
            results.append(result)
            print(row(result), flush=True)
    print(verdict(results))
    return 1 if any(r.faults for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
