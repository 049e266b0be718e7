"""What the machine can do: the rates that limits are worked out from, measured on the threads that the work uses."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._memory import take_job
from helix_plugin_cpu.kernels._simd import VECTOR, fma, load, store
from helix_plugin_cpu.kernels._threads import launch

REPEATS = 200_000
READ_BYTES = 512 << 20


@kernel
def fma_jobs(counter: int, jobs: int, scratch: int, repeats: int) -> None:
    """Eight independent chains: enough that nothing waits, and few enough to stay in registers."""
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        k, c = load(scratch), load(scratch + VECTOR)
        a0, a1, a2, a3, a4, a5, a6, a7 = c, c, c, c, c, c, c, c
        for _ in range(repeats):
            a0, a1, a2, a3 = fma(a0, k, c), fma(a1, k, c), fma(a2, k, c), fma(a3, k, c)
            a4, a5, a6, a7 = fma(a4, k, c), fma(a5, k, c), fma(a6, k, c), fma(a7, k, c)
        store(scratch + 2 * VECTOR, a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7)


@kernel
def mixed_jobs(counter: int, jobs: int, scratch: int, repeats: int) -> None:
    """Additions and multiply-adds by turns: on some CPUs they have units of their own."""
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        k, c = load(scratch), load(scratch + VECTOR)
        a0, a1, a2, a3, b0, b1, b2, b3 = c, c, c, c, c, c, c, c
        for _ in range(repeats):
            a0, b0, a1, b1 = fma(a0, k, c), b0 + c, fma(a1, k, c), b1 + c
            a2, b2, a3, b3 = fma(a2, k, c), b2 + c, fma(a3, k, c), b3 + c
        store(scratch + 2 * VECTOR, a0 + a1 + a2 + a3 + b0 + b1 + b2 + b3)


@kernel
def read_jobs(counter: int, jobs: int, scratch: int, source: int, size: int) -> None:
    """Sums of pieces of `size` bytes, in eight chains."""
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        at, stop = source + job * size, source + (job + 1) * size
        s0, s1, s2, s3 = load(at), load(at), load(at), load(at)
        s4, s5, s6, s7 = load(at), load(at), load(at), load(at)
        while at < stop:
            s0, s1, s2, s3 = (
                s0 + load(at), s1 + load(at + VECTOR), s2 + load(at + 2 * VECTOR), s3 + load(at + 3 * VECTOR),
            )  # fmt: skip
            s4, s5, s6, s7 = (
                s4 + load(at + 4 * VECTOR), s5 + load(at + 5 * VECTOR), s6 + load(at + 6 * VECTOR),
                s7 + load(at + 7 * VECTOR),
            )  # fmt: skip
            at += 8 * VECTOR
        store(scratch, s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7)


def best(run: Callable[[], object], samples: int) -> float:
    """The quickest of several runs: a rate of the machine is what it reaches undisturbed."""
    run()
    times = []
    for _ in range(samples):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def rates() -> dict[str, float]:
    """Measured rates by name, per second."""
    threads = torch.get_num_threads()
    n = 1536
    a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    gemm = best(lambda: torch.mm(a, b, out=out), 15)
    fmas = best(lambda: launch(fma_jobs, threads, 1 << 30, 4 * VECTOR, REPEATS), 15)
    mixed = best(lambda: launch(mixed_jobs, threads, 1 << 30, 4 * VECTOR, REPEATS), 15)
    memory = torch.ones(READ_BYTES // 4)
    pieces = 64
    read = best(lambda: launch(read_jobs, pieces, 1 << 30, VECTOR, memory.data_ptr(), READ_BYTES // pieces), 9)
    target = torch.empty_like(memory)
    copy = best(lambda: target.copy_(memory), 9)
    return {
        "gemm_flops_per_s": 2 * n**3 / gemm,
        "multiplies_per_s": 8 * REPEATS * threads / fmas,
        "vector_ops_per_s": 8 * REPEATS * threads / min(mixed, fmas),
        "read_bytes_per_s": READ_BYTES / read,
        "copy_bytes_per_s": 2 * READ_BYTES / copy,
    }


def description() -> dict[str, object]:
    """What the figures depend on."""
    import platform

    import numba
    from llvmlite import binding

    return {
        "cpu": platform.processor() or platform.machine(),
        "llvm_cpu": binding.get_host_cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
    }
