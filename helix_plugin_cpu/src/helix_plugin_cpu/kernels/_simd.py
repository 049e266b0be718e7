"""A Numba type of sixteen float32 lanes, so that kernels in Python compile to vector code by construction.

Numba's own vectoriser gives up on loops with an exponential or a carried state. LLVM turns <16 x float> into
one AVX-512, two AVX2 or four NEON registers, so one source serves every CPU. Only generic instructions are
emitted: an x86-only intrinsic would abort the process on a CPU without it. No fast-math flags either: NaN must
go through.

Vectors support + - * /, also with a scalar, and unary -. Addresses are integers, in bytes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from helix_plugin_cpu.kernels._jit import instruction, register

LANES = 16
VECTOR = 4 * LANES
"""Bytes of a vector."""

F32, I8, I16, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)

Value = Any  # of LLVM, while code is emitted
Vec = Any  # sixteen floats, in the annotations of kernels


class _F32x16(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


f32x16 = _F32x16()


@register_model(_F32x16)
class _F32x16Model(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, FLOATS)  # type: ignore[no-untyped-call]  # Numba's


def constant(x: float) -> Value:
    """One float in every lane."""
    return ir.Constant(FLOATS, [float(np.float32(x))] * LANES)


def integers(values: Sequence[int]) -> Value:
    """A constant of sixteen int32."""
    return ir.Constant(INTS, list(values))


def call(b: ir.IRBuilder, name: str, result: ir.Type, *args: Value) -> Value:
    """Call one of LLVM's generic intrinsics."""
    functions = b.module.globals
    function = functions.get(name) or ir.Function(b.module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(function, args)


def multiply_add(b: ir.IRBuilder, x: Value, y: Value, z: Value) -> Value:
    """x y + z, fused where the CPU can; `llvm.fma` would become a library call where it cannot."""
    return call(b, "llvm.fmuladd.v16f32", FLOATS, x, y, z)


def spread(b: ir.IRBuilder, scalar: Value) -> Value:
    """A vector whose lanes all hold one number."""
    kind = ir.VectorType(scalar.type, LANES)
    vector = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    return b.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), integers([0] * LANES))


def _as_vector(b: ir.IRBuilder, value: Value) -> Value:
    return value if value.type == FLOATS else spread(b, b.fptrunc(value, F32))


def _binary(op: Any, method: str) -> None:
    def emit(b: ir.IRBuilder, x: Value, y: Value) -> Value:
        return getattr(b, method)(_as_vector(b, x), _as_vector(b, y))

    register(op, f32x16, [(f32x16, f32x16), (f32x16, types.float64), (types.float64, f32x16)], emit)


_binary(operator.add, "fadd")
_binary(operator.sub, "fsub")
_binary(operator.mul, "fmul")
_binary(operator.truediv, "fdiv")
register(operator.neg, f32x16, [(f32x16,)], lambda b, x: b.fneg(x))


def vector_at(b: ir.IRBuilder, address: Value) -> Value:
    """An address as a pointer to sixteen floats."""
    return b.inttoptr(address, FLOATS.as_pointer())


def first_lanes(b: ir.IRBuilder, count: Value) -> Value:
    """The mask of the first `count` lanes."""
    return b.icmp_signed("<", integers(range(LANES)), spread(b, b.trunc(count, I32)))


@instruction(f32x16, types.intp)
def load(b: ir.IRBuilder, address: Value) -> Value:
    """Sixteen floats."""
    value = b.load(vector_at(b, address))
    value.align = 4
    return value


@instruction(types.void, types.intp, f32x16)
def store(b: ir.IRBuilder, address: Value, value: Value) -> None:
    """Write sixteen floats."""
    b.store(value, vector_at(b, address)).align = 4


def emit_load_first(b: ir.IRBuilder, address: Value, count: Value) -> Value:
    """Emit the load of the first `count` lanes; zeros in the others, whose memory is not touched."""
    with b.if_else(b.icmp_signed(">=", count, ir.Constant(I64, LANES))) as (whole, part):
        with whole:
            full = b.load(vector_at(b, address))
            full.align = 4
            full_block = b.block
        with part:
            some = call(
                b, "llvm.masked.load.v16f32.p0", FLOATS, vector_at(b, address), ir.Constant(I32, 4),
                first_lanes(b, count), constant(0.0),
            )  # fmt: skip
            some_block = b.block
    value = b.phi(FLOATS)
    value.add_incoming(full, full_block)
    value.add_incoming(some, some_block)
    return value


@instruction(f32x16, types.intp, types.intp)
def load_first(b: ir.IRBuilder, address: Value, count: Value) -> Value:
    """The first `count` of sixteen floats, zeros behind them; memory behind them is not touched."""
    return emit_load_first(b, address, count)


@instruction(f32x16, f32x16, types.intp, types.float64)
def keep_first(b: ir.IRBuilder, vector: Value, count: Value, other: Value) -> Value:
    """The first `count` lanes, another number in those behind."""
    return b.select(first_lanes(b, count), vector, spread(b, b.fptrunc(other, F32)))


def emit_store_first(b: ir.IRBuilder, address: Value, value: Value, count: Value) -> None:
    """Emit the store of the first `count` lanes."""
    with b.if_else(b.icmp_signed(">=", count, ir.Constant(I64, LANES))) as (whole, part):
        with whole:
            b.store(value, vector_at(b, address)).align = 4
        with part:
            call(
                b, "llvm.masked.store.v16f32.p0", ir.VoidType(), value, vector_at(b, address),
                ir.Constant(I32, 4), first_lanes(b, count),
            )  # fmt: skip


@instruction(types.void, types.intp, f32x16, types.intp)
def store_first(b: ir.IRBuilder, address: Value, value: Value, count: Value) -> None:
    """Write the first `count` of sixteen floats."""
    emit_store_first(b, address, value, count)


@instruction(f32x16, types.intp)
def broadcast(b: ir.IRBuilder, address: Value) -> Value:
    """The float at an address in every lane."""
    return spread(b, b.load(b.inttoptr(address, F32.as_pointer())))


@instruction(f32x16, types.float64)
def splat(b: ir.IRBuilder, value: Value) -> Value:
    """A number in every lane."""
    return spread(b, b.fptrunc(value, F32))


@instruction(f32x16, f32x16, f32x16, f32x16)
def fma(b: ir.IRBuilder, x: Value, y: Value, z: Value) -> Value:
    """x y + z."""
    return multiply_add(b, x, y, z)


@instruction(f32x16, types.intp)
def sum_lanes(b: ir.IRBuilder, address: Value) -> Value:
    """Lane i of the result is the sum over the lanes of the i-th of sixteen vectors, in a fixed order."""
    level = []
    for i in range(LANES):
        row = b.load(vector_at(b, b.add(address, ir.Constant(I64, VECTOR * i))))
        row.align = 4
        level.append(row)
    width = 1
    while len(level) > 1:
        # Halves of pairs are added crosswise: a transposition that sums on its way, with 15 additions.
        odd = [i // width % 2 for i in range(LANES)]
        low = integers([i - width * odd[i] + LANES * odd[i] for i in range(LANES)])
        high = integers([i - width * odd[i] + LANES * odd[i] + width for i in range(LANES)])
        level = [
            b.fadd(b.shuffle_vector(x, y, low), b.shuffle_vector(x, y, high))
            for x, y in zip(level[::2], level[1::2], strict=True)
        ]
        width *= 2
    return level[0]


SIZE_BITS = 0x7FFFFFFF
"""Of a float, all but its sign. As an integer they rise with its size: numbers, infinity, NaN."""


@instruction(f32x16, f32x16, f32x16)
def larger(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """The larger of |x| and |y| in every lane; NaN is larger than anything."""
    x, y = (b.and_(b.bitcast(a, INTS), integers([SIZE_BITS] * LANES)) for a in (x, y))
    return b.bitcast(b.select(b.icmp_signed(">", x, y), x, y), FLOATS)


@instruction(types.float32, f32x16)
def largest(b: ir.IRBuilder, x: Value) -> Value:
    """The largest of sixteen sizes, as `larger` makes them."""
    return b.bitcast(call(b, "llvm.vector.reduce.smax.v16i32", I32, b.bitcast(x, INTS)), F32)
