"""Running a kernel's jobs on several threads.

Numba's own layers are not used: `workqueue` aborts when two threads launch at once, and the OpenMP one hangs in a
forked child. Kernels release the GIL and take a range of jobs; a small pool, made anew after a fork, shares them out.
Jobs write to places of their own, so results do not depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def run_jobs(kernel: Callable[[int, int], None], jobs: int, work: int) -> None:
    """Call `kernel(start, stop)` so that every job in range(jobs) is done once.

    work  rough number of elementary operations in all; small work stays on the calling thread
    """
    threads = min(torch.get_num_threads(), jobs) if work >= 200_000 else 1
    if threads <= 1:
        kernel(0, jobs)
        return
    bounds = [jobs * i // threads for i in range(threads + 1)]
    pool = _pool(threads - 1)
    futures = [pool.submit(kernel, bounds[i], bounds[i + 1]) for i in range(1, threads)]
    kernel(bounds[0], bounds[1])
    for future in futures:
        future.result()


def _pool(workers: int) -> ThreadPoolExecutor:
    key = (os.getpid(), workers)
    pool = _pools.get(key)
    if pool is None:
        with _lock:
            pool = _pools.setdefault(key, ThreadPoolExecutor(workers, thread_name_prefix="helix-cpu"))
    return pool
