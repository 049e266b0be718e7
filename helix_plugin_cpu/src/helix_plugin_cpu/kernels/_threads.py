"""Sharing a kernel's jobs among torch.get_num_threads() threads: those that torch's own operations run on.

One set of threads is warm when it is needed, where two would wake each other up between a kernel and a product. It is
reached through GNU OpenMP's `GOMP_parallel`, of the very library that torch has loaded. Where torch has another one,
and in a forked child, where that call may hang, a small pool of our own stands in. Numba's layers are not used:
`workqueue` aborts the process when two threads launch at once, and OpenMP hangs or aborts in a forked child.

Kernels take jobs from a counter: a thread that comes late, or not at all, leaves its share to the others, and which
thread does a job makes no difference to its result.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, empty
from helix_plugin_cpu.kernels._jit import TEAM, Entry, Kernel
from helix_plugin_cpu.kernels._simd import VECTOR

SMALL_WORK = 500_000
"""Below it one thread is faster than waking another, which takes some 30 µs: a core does 6 updates per ns."""


def _gomp_parallel() -> Callable[..., None] | None:
    """`GOMP_parallel(entry, argument, threads, flags)` as torch's own code finds it; None if there is none."""
    libraries = [None, *map(str, Path(torch.__file__).parent.glob("lib/libtorch_cpu.*"))]
    for library in libraries if os.name != "nt" else ():
        with suppress(OSError, AttributeError):
            found = ctypes.CDLL(library).GOMP_parallel
            found.argtypes, found.restype = (Entry, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
            return found
    return None


_parallel = _gomp_parallel()
_pools: dict[int, ThreadPoolExecutor] = {}
_creating = threading.Lock()


def _start_anew() -> None:
    """In a forked child the parent's threads do not exist, and its lock may be held by none."""
    global _creating, _parallel
    _parallel = None
    _pools.clear()
    _creating = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def _pool(helpers: int) -> ThreadPoolExecutor:
    pool = _pools.get(helpers)
    if pool is None:
        with _creating:
            pool = _pools.setdefault(helpers, ThreadPoolExecutor(helpers, thread_name_prefix="helix-cpu"))
    return pool


def _run(entry: Any, team: int, members: int) -> None:
    """Have `members` threads enter; fewer if there are no more to be had."""
    if members == 1:
        entry(team)
        return
    if _parallel is not None:
        # All of them, always: GNU OpenMP ends and starts threads where teams differ in size. Who is too many returns.
        _parallel(entry, team, max(members, torch.get_num_threads()), 0)
        return
    helping: list[Future[None]] = []
    # RuntimeError: no more threads to be had, or the interpreter is shutting down.
    with suppress(RuntimeError):
        helping.extend(_pool(members - 1).submit(entry, team) for _ in range(members - 1))
    entry(team)
    for helper in helping:
        if not helper.cancel():
            helper.result()


class _Own(threading.local):
    """A thread's own memory: it makes one call at a time, so that the same will do every time."""

    def __init__(self) -> None:
        self.words = bytearray()
        self.scratch = empty(0, dtype=torch.uint8)
        self.reserve(8192)

    def reserve(self, size: int) -> None:
        """Room for a team and its arguments, which start at `address`."""
        if size > len(self.words):
            self.words = bytearray(size)
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.words))

    def scratch_of(self, size: int) -> Tensor:
        """Uninitialised bytes; large ones are not kept."""
        if size > KEPT_SCRATCH:
            return empty(size, dtype=torch.uint8)
        if size > self.scratch.numel():
            self.scratch = empty(size, dtype=torch.uint8)
        return self.scratch


_own = _Own()
KEPT_SCRATCH = 4 << 20
BLOCKS = TEAM.size
COUNTER = BLOCKS - 8


def call_together(kernel: Kernel, shares: Sequence[tuple[int | float, ...]]) -> None:
    """Call a kernel on as many threads as there are tuples of arguments, all of the same types."""
    entry, packing = kernel.entry(shares[0])
    own, size = _own, packing.size
    own.reserve(BLOCKS + len(shares) * size)
    TEAM.pack_into(own.words, 0, 0, len(shares), own.address + BLOCKS, size, 0)
    for i, args in enumerate(shares):
        packing.pack_into(own.words, BLOCKS + i * size, *args)
    _run(entry, own.address, len(shares))


def launch(kernel: Kernel, jobs: int, work: int, scratch: int, *args: int | float) -> None:
    """Call `kernel(counter, jobs, scratch, *args)` on as many threads as are worth it.

    work     elementary operations in all, roughly
    scratch  bytes that each thread gets, aligned to a cache line
    """
    threads = max(1, min(torch.get_num_threads(), jobs)) if work >= SMALL_WORK else 1
    step = (scratch + 2 * VECTOR - 1) // VECTOR * VECTOR
    own = _own
    memory = own.scratch_of(threads * step + VECTOR)
    start = -(-address(memory) // VECTOR) * VECTOR
    own.reserve(BLOCKS + threads * 8 * (3 + len(args)))
    counter = own.address + COUNTER
    call_together(kernel, [(counter, jobs, start + i * step, *args) for i in range(threads)])
