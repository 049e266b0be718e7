"""Rows of activations in memory, as float32 or half precision; arithmetic is in float32 always.

How they are stored is a kernel's argument, and told by its type: a float stands for float32, an integer for bfloat16
and an unsigned one for float16. So each of them is compiled when it is first used, without a branch in its loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from llvmlite import ir
from numba import types

from helix_plugin_cpu.kernels._jit import Unsigned, inline, overloaded
from helix_plugin_cpu.kernels._simd import (
    F32,
    FLOATS,
    I16,
    I32,
    I64,
    INTS,
    LANES,
    VECTOR,
    Value,
    call,
    constant,
    emit_load_first,
    emit_store_first,
    f32x16,
    first_lanes,
    integers,
    splat,
    store,
)

FLOAT32, BFLOAT16, FLOAT16 = 4.0, 2, Unsigned(2)
KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
SHORTS = ir.VectorType(I16, LANES)
HALVES = ir.VectorType(ir.HalfType(), LANES)
WHOLE, SHORT, HALF = types.float64, types.int64, types.uint64


def kind(*arrays: torch.Tensor | None) -> float | int:
    """How arrays of one dtype are stored. Raises TypeError if theirs is none of the three, or differs."""
    dtypes = {array.dtype for array in arrays if array is not None}
    if len(dtypes) != 1 or not dtypes <= KINDS.keys():
        found = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(f"activations must be all float32, all bfloat16 or all float16, not {found}")
    return KINDS[dtypes.pop()]


def _shorts_at(b: ir.IRBuilder, address: Value) -> Value:
    return b.inttoptr(address, SHORTS.as_pointer())


def _load_shorts(b: ir.IRBuilder, address: Value, count: Value) -> Value:
    with b.if_else(b.icmp_signed(">=", count, ir.Constant(I64, LANES))) as (whole, part):
        with whole:
            full = b.load(_shorts_at(b, address))
            full.align = 2
            full_block = b.block
        with part:
            some = call(
                b, "llvm.masked.load.v16i16.p0", SHORTS, _shorts_at(b, address), ir.Constant(I32, 2),
                first_lanes(b, count), ir.Constant(SHORTS, [0] * LANES),
            )  # fmt: skip
            some_block = b.block
    value = b.phi(SHORTS)
    value.add_incoming(full, full_block)
    value.add_incoming(some, some_block)
    return value


def _store_shorts(b: ir.IRBuilder, address: Value, shorts: Value, count: Value) -> None:
    with b.if_else(b.icmp_signed(">=", count, ir.Constant(I64, LANES))) as (whole, part):
        with whole:
            b.store(shorts, _shorts_at(b, address)).align = 2
        with part:
            call(
                b, "llvm.masked.store.v16i16.p0", ir.VoidType(), shorts, _shorts_at(b, address),
                ir.Constant(I32, 2), first_lanes(b, count),
            )  # fmt: skip


def _load_bfloat16(b: ir.IRBuilder, _kind: Value, address: Value, count: Value) -> Value:
    words = b.zext(_load_shorts(b, address, count), INTS)
    return b.bitcast(b.shl(words, integers([16] * LANES)), FLOATS)


def _store_bfloat16(b: ir.IRBuilder, _kind: Value, address: Value, value: Value, count: Value) -> None:
    bits = b.bitcast(value, INTS)
    # To the nearest, ties to even; the carry of a NaN could turn it into something else.
    odd = b.and_(b.lshr(bits, integers([16] * LANES)), integers([1] * LANES))
    rounded = b.add(b.add(bits, integers([0x7FFF] * LANES)), odd)
    rounded = b.select(b.fcmp_ordered("ord", value, value), rounded, b.bitcast(constant(math.nan), INTS))
    _store_shorts(b, address, b.trunc(b.lshr(rounded, integers([16] * LANES)), SHORTS), count)


def _load_float16(b: ir.IRBuilder, _kind: Value, address: Value, count: Value) -> Value:
    return b.fpext(b.bitcast(_load_shorts(b, address, count), HALVES), FLOATS)


def _store_float16(b: ir.IRBuilder, _kind: Value, address: Value, value: Value, count: Value) -> None:
    _store_shorts(b, address, b.bitcast(b.fptrunc(value, HALVES), SHORTS), count)


def _load_one_bfloat16(b: ir.IRBuilder, _kind: Value, address: Value) -> Value:
    bits = b.zext(b.load(b.inttoptr(address, I16.as_pointer())), I32)
    return b.bitcast(b.shl(bits, ir.Constant(I32, 16)), F32)


def _load_one_float16(b: ir.IRBuilder, _kind: Value, address: Value) -> Value:
    return b.fpext(b.load(b.inttoptr(address, ir.HalfType().as_pointer())), F32)


def _whole(emit: Callable[..., Any]) -> Callable[..., Any]:
    return lambda b, _kind, *rest: emit(b, *rest)


size_of = overloaded(
    "size_of",
    types.intp,
    ((WHOLE,), lambda b, _kind: ir.Constant(I64, 4)),
    ((SHORT,), lambda b, _kind: ir.Constant(I64, 2)),
    ((HALF,), lambda b, _kind: ir.Constant(I64, 2)),
)
"""size_of(kind): bytes of an element."""

is_wide = overloaded(
    "is_wide",
    types.boolean,
    ((WHOLE,), lambda b, _kind: ir.Constant(ir.IntType(1), 1)),
    ((SHORT,), lambda b, _kind: ir.Constant(ir.IntType(1), 0)),
    ((HALF,), lambda b, _kind: ir.Constant(ir.IntType(1), 0)),
)
"""is_wide(kind): whether elements are float32; a constant to the compiler."""

read_one = overloaded(
    "read_one",
    types.float32,
    ((WHOLE, types.intp), lambda b, _kind, address: b.load(b.inttoptr(address, F32.as_pointer()))),
    ((SHORT, types.intp), _load_one_bfloat16),
    ((HALF, types.intp), _load_one_float16),
)
"""read_one(kind, address): an element."""

read = overloaded(
    "read",
    f32x16,
    ((WHOLE, types.intp, types.intp), _whole(emit_load_first)),
    ((SHORT, types.intp, types.intp), _load_bfloat16),
    ((HALF, types.intp, types.intp), _load_float16),
)
"""read(kind, address, count): the first `count` of sixteen elements, zeros behind them."""

write = overloaded(
    "write",
    types.void,
    ((WHOLE, types.intp, f32x16, types.intp), _whole(emit_store_first)),
    ((SHORT, types.intp, f32x16, types.intp), _store_bfloat16),
    ((HALF, types.intp, f32x16, types.intp), _store_float16),
)
"""write(kind, address, vector, count): its first `count` elements, rounded to the nearest."""


@inline
def clear_stored(kind: float, target: int, row: int, rows: int, width: int) -> None:
    """Write zeros to `width` elements in each of several rows, `row` elements apart."""
    for t in range(rows):
        for d in range(0, width, LANES):
            write(kind, target + size_of(kind) * (t * row + d), splat(0.0), width - d)


@inline
def as_floats(kind: float, source: int, width: int, buffer: int) -> int:
    """Where the elements of a row stand as float32: where they are, or after a copy in the buffer."""
    if is_wide(kind):
        return source
    for d in range(0, width, LANES):
        store(buffer + VECTOR * (d // LANES), read(kind, source + size_of(kind) * d, width - d))
    return buffer
