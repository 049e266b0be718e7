"""Sharing a kernel's jobs among torch.get_num_threads() threads.

Numba's own layers are not used: `workqueue` aborts the process when two threads launch at once, and OpenMP
hangs or aborts in a forked child. Kernels release the GIL and take jobs from a counter. Helpers come from a
small pool and may be late, busy or impossible to start: the calling thread takes jobs too, so that the work
gets done without them. Which thread does a job makes no difference to its result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import torch

from helix_plugin_cpu.kernels._simd import VECTOR

SMALL_WORK = 500_000
"""Below it one thread is faster than waking another, which takes some 30 µs: a core does 6 updates per ns."""

_pools: dict[int, ThreadPoolExecutor] = {}
_creating = threading.Lock()


def _forget_pools() -> None:
    """In a forked child the threads of the parent's pools do not exist, and its lock may be held by none."""
    global _creating
    _pools.clear()
    _creating = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


def _pool(helpers: int) -> ThreadPoolExecutor:
    pool = _pools.get(helpers)
    if pool is None:
        with _creating:
            pool = _pools.setdefault(helpers, ThreadPoolExecutor(helpers, thread_name_prefix="helix-cpu"))
    return pool


def launch(kernel: Callable[..., None], jobs: int, work: int, scratch: int, *args: int | float) -> None:
    """Call `kernel(counter, jobs, scratch, *args)` on as many threads as are worth it.

    work     elementary operations in all, roughly
    scratch  bytes that each thread gets, aligned to a cache line
    """
    threads = min(torch.get_num_threads(), jobs) if work >= SMALL_WORK else 1
    counter = torch.zeros(1, dtype=torch.int64)
    space = scratch + VECTOR
    memory = torch.empty(threads * space, dtype=torch.uint8)
    start = -(-memory.data_ptr() // VECTOR) * VECTOR
    step = space // VECTOR * VECTOR
    shares = [(counter.data_ptr(), jobs, start + i * step, *args) for i in range(threads)]
    helping: list[Future[None]] = []
    if threads > 1:
        pool = _pool(threads - 1)
        # RuntimeError: no more threads to be had, or the interpreter is shutting down.
        with suppress(RuntimeError):
            helping.extend(pool.submit(kernel, *share) for share in shares[1:])
    kernel(*shares[0])
    for helper in helping:
        if not helper.cancel():
            helper.result()
