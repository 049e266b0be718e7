"""What a memory's store survives: a kill at every file-system event of a save, and a disk that is full.

Run as a process of its own by the memory kit, `python -m helix_testing.memory_faults`, with a request as JSON
on standard input; it forks, so it must not have threads.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.errors import MemoryStoreError
from helix_core.kinds.memory import Memory
from helix_core.plugin_system import create

EVENTS = ("open", "os.", "shutil.")


def main() -> None:
    """Carry out the request and print what happened, as JSON."""
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    rng = np.random.default_rng(request["seed"])
    memory: Memory[Any] = create("memory", request["memory"], **request["config"])
    memory.add(rng.normal(size=(30, memory.config.dim)))
    memory.save(folder / "before")
    memory.add(rng.normal(size=(20, memory.config.dim)))
    report = {"sizes": kill_everywhere(memory, request, folder), "full": fill_disk(memory, request, folder)}
    print(json.dumps(report))


def kill_everywhere(memory: Memory[Any], request: Any, folder: Path) -> list[int]:
    """Number of items found after a save that died at its first, second, ... event, and after one that did not."""
    sizes = []
    for moment in range(1, 1000):
        store = folder / "killed"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(folder / "before", store)
        child = os.fork()
        if child == 0:
            _die_at(moment)
            memory.save(store)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sizes.append(_size(request, store))
        if os.waitstatus_to_exitcode(status) == 0:
            return sizes
    raise RuntimeError("the save never ended")


def fill_disk(memory: Memory[Any], request: Any, folder: Path) -> dict[str, Any]:
    """What a save says when the disk takes no more than a few bytes, and what the store then holds."""
    import resource

    store = folder / "full"
    shutil.copytree(folder / "before", store)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        memory.save(store)
        error = ""
    except MemoryStoreError as refused:
        error = str(refused)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return {"error": error, "size": _size(request, store), "kept": len(memory)}


def _die_at(moment: int) -> None:
    """End this process, as by a power cut, at the given file-system event."""
    left = moment

    def hook(event: str, arguments: Any) -> None:
        nonlocal left
        if event.startswith(EVENTS):
            left -= 1
            if left == 0:
                os._exit(9)

    sys.addaudithook(hook)


def _size(request: Any, store: Path) -> int:
    memory: Memory[Any] = create("memory", request["memory"], **request["config"])
    memory.load(store)
    return len(memory)


if __name__ == "__main__":
    main()
