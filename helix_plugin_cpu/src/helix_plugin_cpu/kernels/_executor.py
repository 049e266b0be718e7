"""Runs a recorded program: instructions on fixed addresses, shared among threads without going back to Python.

A program is a list of stages. The instructions of a stage are split into the same jobs, by columns or by rows, and no
job reads what another of its stage writes; a stage begins when the one before is done. Threads take jobs from a
counter, so one that comes late or loses its core delays the others by one job at most, and results do not depend on
their number.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from llvmlite import binding, ir
from numba import types

from helix_plugin_cpu.kernels._decode_step import conv_step, gather_step, norm_step, scan_step
from helix_plugin_cpu.kernels._jit import inline, instruction, kernel
from helix_plugin_cpu.kernels._memory import get, get_int, prefetch, take_job
from helix_plugin_cpu.kernels._pointwise import pointwise, reduce
from helix_plugin_cpu.kernels._products import INT8, multiply, quantize_row, quantized_bytes
from helix_plugin_cpu.kernels._simd import I32, I64, VECTOR, Value, call

WORDS = 32
"""int64 words of an instruction; the first is its code."""
STAGE_WORDS = 4
COUNTER_BYTES = 64
LINEAR, POINTWISE, REDUCE, NORM, CONV, SCAN, GATHER = range(7)
SUMS = 4 * 16 * 64
"""Bytes of scratch that products need, before the quantised rows."""
SPINS = 3000
FETCHED = 128 << 10
"""Bytes of a product's weights that are fetched while its input is not ready; a share of the L2 cache."""


def _yield_address() -> int:
    """The C function that lets another thread run."""
    if os.name == "nt":
        library, name = ctypes.WinDLL("kernel32"), "SwitchToThread"  # type: ignore[attr-defined]
    else:
        library, name = ctypes.CDLL(None), "sched_yield"
    return int(ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0)


binding.add_symbol("helix_yield_core", _yield_address())


@instruction(types.void)
def yield_core(b: ir.IRBuilder) -> None:
    call(b, "helix_yield_core", I32)


@instruction(types.void)
def pause(b: ir.IRBuilder) -> None:
    """Tell the core that this is a loop that waits."""
    if b.module.triple.startswith("x86_64"):
        call(b, "llvm.x86.sse2.pause", ir.VoidType())


@instruction(types.intp, types.intp)
def watch(b: ir.IRBuilder, address: Value) -> Value:
    """An int64 that other threads change; what they wrote before is seen after."""
    return b.load_atomic(b.inttoptr(address, I64.as_pointer()), "acquire", 8)


@instruction(types.void, types.intp)
def finish_job(b: ir.IRBuilder, counter: Value) -> None:
    """Count a job as done; what this thread wrote is seen by those who watch."""
    b.atomic_rmw("add", b.inttoptr(counter, I64.as_pointer()), ir.Constant(I64, 1), "release")


@inline
def wait_for(counter: int, count: int, ahead: int, stop: int) -> None:
    """Until a counter has come so far; meanwhile, fetch what lies at ahead..stop-1."""
    spins = 0
    while watch(counter) < count:
        spins += 1
        if ahead < stop:
            for i in range(4):
                prefetch(ahead + VECTOR * i)
            ahead += 4 * VECTOR
        elif spins < SPINS:
            pause()
        else:
            yield_core()


@inline
def word(code: int, index: int) -> Any:
    return get_int(code + 8 * index)


@kernel
def run_stages(stages: int, counters: int, first: int, last: int, scratch: int) -> None:
    """Take part in stages first..last-1. A stage: its jobs, their bounds, its instructions, how many; addresses."""
    # Which rows are quantised in scratch. Not a literal 0, a type of its own for which all would be compiled twice.
    held = first - first
    for s in range(first, last):
        stage, counter = stages + 8 * STAGE_WORDS * s, counters + COUNTER_BYTES * s
        jobs, bounds, instructions, count = get_int(stage), word(stage, 1), word(stage, 2), word(stage, 3)
        ready = s == first
        while watch(counter) < jobs:
            job = take_job(counter)
            if job >= jobs:
                break
            if not ready:
                first_weight, stop = 0, 0
                if word(instructions, 0) == LINEAR:
                    row = word(instructions, 7)
                    first_weight = word(instructions, 6) + row * word(bounds, job)
                    stop = min(word(instructions, 6) + row * word(bounds, job + 1), first_weight + FETCHED)
                wait_for(counter - COUNTER_BYTES + 8, get_int(stage - 8 * STAGE_WORDS), first_weight, stop)
                ready = True
            lo, hi = word(bounds, job), word(bounds, job + 1)
            for number in range(count):
                i = instructions + 8 * WORDS * number
                code = word(i, 0)
                if code == LINEAR:
                    kind, x, x_row, batch, K = word(i, 1), word(i, 2), word(i, 3), word(i, 4), word(i, 5)
                    if kind == INT8 and held != word(i, 11):
                        held = word(i, 11)
                        for b in range(batch):
                            quantize_row(x + x_row * b, K, scratch + SUMS + b * quantized_bytes(K))
                    multiply(
                        kind, x, x_row, batch, K, word(i, 6), word(i, 7), word(i, 8), word(i, 9), word(i, 10), lo,
                        hi, scratch + SUMS, scratch,
                    )  # fmt: skip
                elif code == POINTWISE:
                    top, bottom, left, right = lo, hi, 0, word(i, 7)
                    if word(i, 8) == 0:
                        top, bottom, left, right = 0, word(i, 9), lo, hi
                    pointwise(
                        word(i, 1), word(i, 2), word(i, 10), word(i, 3), word(i, 4), word(i, 5), word(i, 6), top,
                        bottom, left, right, scratch,
                    )  # fmt: skip
                elif code == REDUCE:
                    reduce(word(i, 1), word(i, 2), word(i, 3), word(i, 4), word(i, 5), lo, hi, scratch)
                elif code == NORM:
                    norm_step(
                        word(i, 1), word(i, 2), word(i, 3), word(i, 4), word(i, 5), word(i, 6), word(i, 7),
                        get(word(i, 8)), word(i, 9), word(i, 10), word(i, 11), word(i, 12), word(i, 13), lo, hi,
                        scratch,
                    )  # fmt: skip
                elif code == CONV:
                    conv_step(
                        word(i, 1), word(i, 2), word(i, 3), word(i, 4), word(i, 5), word(i, 6), word(i, 7),
                        word(i, 8), word(i, 9), word(i, 10), word(i, 11), word(i, 12), lo, hi,
                    )  # fmt: skip
                elif code == SCAN:
                    scan_step(
                        word(i, 1), word(i, 2), word(i, 3), word(i, 4), word(i, 5), word(i, 6), word(i, 7),
                        word(i, 8), word(i, 9), word(i, 10), word(i, 11), word(i, 12), word(i, 13), word(i, 14),
                        word(i, 15), word(i, 16), word(i, 17), word(i, 18), word(i, 19), word(i, 20), word(i, 21),
                        lo, hi, scratch,
                    )  # fmt: skip
                elif code == GATHER:
                    gather_step(
                        word(i, 1), word(i, 2), word(i, 3), word(i, 4), word(i, 5), word(i, 6), word(i, 7), lo, hi
                    )
            finish_job(counter + 8)
    if last > first:
        wait_for(counters + COUNTER_BYTES * (last - 1) + 8, get_int(stages + 8 * STAGE_WORDS * (last - 1)), 0, 0)
