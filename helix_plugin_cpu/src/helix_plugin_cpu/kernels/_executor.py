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
from helix_plugin_cpu.kernels._instructions import (
    CONV,
    GATHER,
    LINEAR,
    NORM,
    POINTWISE,
    REDUCE,
    SCAN,
    WORDS,
    word,
)
from helix_plugin_cpu.kernels._jit import inline, instruction, kernel
from helix_plugin_cpu.kernels._memory import get_int, prefetch, take_job
from helix_plugin_cpu.kernels._pointwise import pointwise, reduce
from helix_plugin_cpu.kernels._products import INT8, multiply, quantize_row, quantized_bytes
from helix_plugin_cpu.kernels._simd import I32, I64, VECTOR, Value, call

STAGE_WORDS = 4
COUNTER_BYTES = 64
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
    """Let another thread have this core."""
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
def linear_step(i: int, held: int, lo: int, hi: int, scratch: int) -> Any:
    """LINEAR on columns lo..hi-1; returns which contents are quantised in scratch: `held`, or this instruction's."""
    kind, batch, K = word(i, LINEAR.kind), word(i, LINEAR.batch), word(i, LINEAR.inputs)
    x, x_row = word(i, LINEAR.x), word(i, LINEAR.x_row)
    if kind == INT8 and held != word(i, LINEAR.contents):
        held = word(i, LINEAR.contents)
        for b in range(batch):
            quantize_row(x + x_row * b, K, scratch + SUMS + b * quantized_bytes(K))
    multiply(
        kind, x, x_row, batch, K, word(i, LINEAR.w), word(i, LINEAR.w_row), word(i, LINEAR.bias), word(i, LINEAR.y),
        word(i, LINEAR.y_row), lo, hi, scratch + SUMS, scratch,
    )  # fmt: skip
    return held


@inline
def pointwise_step(i: int, lo: int, hi: int, scratch: int) -> None:
    """POINTWISE on rows lo..hi-1 of all columns, or on those columns of all rows."""
    top, bottom, left, right = lo, hi, 0, word(i, POINTWISE.columns)
    if word(i, POINTWISE.by_rows) == 0:
        top, bottom, left, right = 0, word(i, POINTWISE.rows), lo, hi
    pointwise(
        word(i, POINTWISE.function), word(i, POINTWISE.out_rows), word(i, POINTWISE.out_step),
        word(i, POINTWISE.first_rows), word(i, POINTWISE.first_step), word(i, POINTWISE.second_rows),
        word(i, POINTWISE.second_step), top, bottom, left, right, scratch,
    )  # fmt: skip


@inline
def reduce_step(i: int, first: int, last: int, scratch: int) -> None:
    """REDUCE on rows first..last-1."""
    reduce(
        word(i, REDUCE.function), word(i, REDUCE.out_rows), word(i, REDUCE.rows), word(i, REDUCE.step),
        word(i, REDUCE.columns), first, last, scratch,
    )  # fmt: skip


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
                if word(instructions, 0) == LINEAR.code:
                    w, w_row = word(instructions, LINEAR.w), word(instructions, LINEAR.w_row)
                    first_weight = w + w_row * word(bounds, job)
                    stop = min(w + w_row * word(bounds, job + 1), first_weight + FETCHED)
                wait_for(counter - COUNTER_BYTES + 8, get_int(stage - 8 * STAGE_WORDS), first_weight, stop)
                ready = True
            lo, hi = word(bounds, job), word(bounds, job + 1)
            for number in range(count):
                i = instructions + 8 * WORDS * number
                code = word(i, 0)
                if code == LINEAR.code:
                    held = linear_step(i, held, lo, hi, scratch)
                elif code == POINTWISE.code:
                    pointwise_step(i, lo, hi, scratch)
                elif code == REDUCE.code:
                    reduce_step(i, lo, hi, scratch)
                elif code == NORM.code:
                    norm_step(i, lo, hi, scratch)
                elif code == CONV.code:
                    conv_step(i, lo, hi)
                elif code == SCAN.code:
                    scan_step(i, lo, hi, scratch)
                elif code == GATHER.code:
                    gather_step(i, lo, hi)
            finish_job(counter + 8)
    if last > first:
        wait_for(counters + COUNTER_BYTES * (last - 1) + 8, get_int(stages + 8 * STAGE_WORDS * (last - 1)), 0, 0)
