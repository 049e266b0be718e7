"""A process that reads damaged files: what crashes it, crashes it alone.

    python fuzz_worker.py SEED BEGIN END FOLDER READER...

It reads inputs BEGIN..END-1 of the first reader and 0..END-1 of the others. It prints a line `reader NAME`, then
`begin INDEX` before each input and `end INDEX SECONDS MEGABYTES OUTCOME` after it. Inputs depend on reader, seed and
index alone. With `--show` it leaves the last input in FOLDER and prints tracebacks.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
import traceback
import warnings
from pathlib import Path
from random import Random

from fuzz_faulty import FAULTY
from fuzz_mutations import damage
from fuzz_readers import READERS


def main(seed: int, begin: int, end: int, work: Path, readers: list[str], show: bool) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    for name in readers:
        print("reader", name, flush=True)
        read_inputs(name, seed, range(begin, end), work, show)
        begin = 0


def read_inputs(name: str, seed: int, inputs: range, work: Path, show: bool) -> None:
    from helix_core.errors import HelixError

    reader = (READERS | FAULTY)[name]()
    shutil.rmtree(work, ignore_errors=True)
    sample, folder = work / "sample", work / "input"
    sample.mkdir(parents=True, exist_ok=True)
    given = reader.make(sample)
    files = {p.relative_to(sample).as_posix(): p.read_bytes() for p in sorted(sample.rglob("*")) if p.is_file()}
    reader.read(sample, given)  # as it is, it must be read; kernels are compiled here, too
    for index in inputs:
        damage(folder, files, Random(f"{name} {seed} {index}"), reader.sign)
        print("begin", index, flush=True)
        before = _reset_peak()
        started = time.perf_counter()
        try:
            reader.read(folder, given)
            outcome = "read"
        except HelixError:
            outcome = "refused"
            if show:
                traceback.print_exc()
        except BaseException as error:  # what must not happen, a panic included
            place = traceback.extract_tb(error.__traceback__)[-1]
            outcome = f"{type(error).__name__}: {str(error)[:200]!r} at {place.filename}:{place.lineno}"
            if show:
                traceback.print_exc()
        seconds = time.perf_counter() - started
        print("end", index, f"{seconds:.3f} {(_peak() - before) / 2**20:.0f}", outcome, flush=True)


def _reset_peak() -> int:
    """Make the kernel forget the greatest memory so far; the memory now, in bytes. 0 where there is no such thing."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--show"]
    main(*map(int, arguments[:3]), Path(arguments[3]), arguments[4:], "--show" in sys.argv)
