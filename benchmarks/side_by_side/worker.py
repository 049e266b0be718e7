"""One side of a row, in a process of its own: prepares the work, then does it when asked.

Answers lines on standard input: `run N` does the work N times and prints the seconds, the CPU seconds used
and those that threads waited for a core;
`save FILE` writes what the work returned.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from side_by_side.row import NotHere


def status(name: str) -> float:
    """A line of /proc/self/status in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def cpu_seconds() -> float:
    """Used by this process and by programs that it ran."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def waited_seconds() -> float:
    """That threads of this process were ready to run, and no core ran them; 0 where the system does not count it."""
    nanoseconds = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread may end meanwhile
            nanoseconds += int(file.read_text().split()[1])
    return nanoseconds / 1e9


def arrays(result: Any) -> list[np.ndarray]:
    """The arrays in what a side returned, in order."""
    if result is None:
        return []
    if isinstance(result, dict):
        return [a for key in sorted(result) for a in arrays(result[key])]
    if isinstance(result, (list, tuple)):
        return [a for value in result for a in arrays(value)]
    if hasattr(result, "detach"):
        result = result.detach().float().numpy()
    return [np.asarray(result)]


def main() -> None:
    spec = json.loads(sys.argv[1])
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        module, function = spec["factory"].split(":")
        run = getattr(importlib.import_module(module), function)(**spec["options"])
    except NotHere as missing:
        print(json.dumps({"missing": str(missing)}), file=answers)
        return
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    result = run()
    cold = time.perf_counter() - began
    print(json.dumps({"cold": cold}), file=answers)
    for line in sys.stdin:
        command, argument = line.split(maxsplit=1)
        if command == "run":
            count, cpu, waited = int(argument), cpu_seconds(), waited_seconds()
            if count > 1:
                result = run()
            began = time.perf_counter()
            for _ in range(count):
                result = None  # the result of the run before is memory that this one may use
                result = run()
            seconds = float(result) if spec["once"] else (time.perf_counter() - began) / count
            peak = status("VmHWM")
            answer = {
                "seconds": seconds,
                "cpu": cpu_seconds() - cpu,
                "waited": waited_seconds() - waited,
                "peak": peak,
                "extra": peak - before,
            }
            print(json.dumps(answer), file=answers)
        elif command == "save":
            np.savez(argument.strip(), *arrays(result))
            print(json.dumps({}), file=answers)


if __name__ == "__main__":
    main()
