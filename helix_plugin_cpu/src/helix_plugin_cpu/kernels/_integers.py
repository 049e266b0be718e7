"""Sixteen int32 lanes, and the products of eight-bit weights with activations that use them.

Weights are stored as bytes w + 128, four columns of sixteen rows in a vector. Masks and shifts make 16-bit halves of
them, and LLVM turns a sum of two products of those into one instruction (pmaddwd) on every x86; sums are exact.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from helix_plugin_cpu.kernels._jit import instruction
from helix_plugin_cpu.kernels._simd import (
    F32,
    FLOATS,
    I32,
    I64,
    INTS,
    LANES,
    Value,
    call,
    constant,
    f32x16,
    first_lanes,
    integers,
    spread,
    vector_at,
)

I16 = ir.IntType(16)
HALVES = ir.VectorType(I16, 2 * LANES)
PAIRS = ir.VectorType(I32, 2 * LANES)

GROUP = 32
"""Columns that share a scale."""


class _I32x16(types.Type):
    def __init__(self) -> None:
        super().__init__(name="int32x16")


i32x16 = _I32x16()


@register_model(_I32x16)
class _I32x16Model(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, INTS)  # type: ignore[no-untyped-call]  # Numba's


def _halves(b: ir.IRBuilder, vector: Value, odd: bool) -> Value:
    """The even or odd bytes of sixteen words as 16-bit numbers."""
    halves = b.bitcast(vector, HALVES)
    if odd:
        return b.lshr(halves, ir.Constant(HALVES, [8] * 2 * LANES))
    return b.and_(halves, ir.Constant(HALVES, [255] * 2 * LANES))


def pair_sums(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """x_0 y_0 + x_1 y_1 in each word."""
    product = b.mul(b.sext(x, PAIRS), b.sext(y, PAIRS))
    undefined = ir.Constant(PAIRS, ir.Undefined)
    first, second = (b.shuffle_vector(product, undefined, integers(range(start, 2 * LANES, 2))) for start in (0, 1))
    return b.add(first, second)


@instruction(i32x16, types.intp)
def integers_at(b: ir.IRBuilder, address: Value) -> Value:
    """Load sixteen int32."""
    value = b.load(b.inttoptr(address, INTS.as_pointer()))
    value.align = 4
    return value


@instruction(i32x16, types.intp)
def broadcast_integer(b: ir.IRBuilder, address: Value) -> Value:
    """The int32 at an address in every lane."""
    return spread(b, b.load(b.inttoptr(address, I32.as_pointer())))


@instruction(i32x16, i32x16, i32x16, types.intp)
def dot_quad(b: ir.IRBuilder, total: Value, weights: Value, x: Value) -> Value:
    """total + the products of four bytes in each lane with four 16-bit numbers at x, ordered 0, 2, 1, 3."""
    for odd in (False, True):
        pair = b.load(b.inttoptr(b.add(x, ir.Constant(I64, 4 * odd)), I32.as_pointer()))
        total = b.add(total, pair_sums(b, _halves(b, weights, odd), b.bitcast(spread(b, pair), HALVES)))
    return total


@instruction(i32x16)
def no_integers(b: ir.IRBuilder) -> Value:
    """Zeros."""
    return integers([0] * LANES)


@instruction(types.int32, i32x16)
def sum_integers(b: ir.IRBuilder, x: Value) -> Value:
    """Add up the lanes."""
    return call(b, "llvm.vector.reduce.add.v16i32", I32, x)


@instruction(f32x16, i32x16)
def to_floats(b: ir.IRBuilder, x: Value) -> Value:
    """Turn integers into floats."""
    return b.sitofp(x, FLOATS)


@instruction(f32x16, i32x16)
def low_bfloat16(b: ir.IRBuilder, words: Value) -> Value:
    """The lower bfloat16 of each word."""
    return b.bitcast(b.shl(words, integers([16] * LANES)), FLOATS)


@instruction(f32x16, i32x16)
def high_bfloat16(b: ir.IRBuilder, words: Value) -> Value:
    """The upper bfloat16 of each word."""
    return b.bitcast(b.and_(words, integers([-65536] * LANES)), FLOATS)


ROUND = 1.5 * 2**23


@instruction(types.float32, types.intp, types.intp, types.intp, types.intp)
def quantize_group(b: ir.IRBuilder, x: Value, count: Value, target: Value, correction: Value) -> Value:
    """A group of floats as 16-bit numbers within ±127, four at a time in the order 0, 2, 1, 3; returns its scale.

    Only `count` floats are there, zeros follow. `correction` receives -128 times the sum of the numbers, which makes
    up for the weights' 128. A scale is NaN if a float of the group is NaN or infinite.
    """
    halves = []
    for part in range(2):
        left = b.sub(count, ir.Constant(I64, LANES * part))
        at = vector_at(b, b.add(x, ir.Constant(I64, 4 * LANES * part)))
        halves.append(
            call(b, "llvm.masked.load.v16f32.p0", FLOATS, at, ir.Constant(I32, 4), first_lanes(b, left), constant(0.0))
        )
    sizes = [call(b, "llvm.fabs.v16f32", FLOATS, half) for half in halves]
    larger = b.select(b.fcmp_ordered(">", sizes[0], sizes[1]), sizes[0], sizes[1])
    largest = call(b, "llvm.vector.reduce.fmax.v16f32", F32, larger)
    # Zero, or NaN where there is one.
    zeros = b.fadd(b.fmul(halves[0], constant(0.0)), b.fmul(halves[1], constant(0.0)))
    taint = ir.Constant(F32, 0.0)
    for lane in range(LANES):
        taint = b.fadd(taint, b.extract_element(zeros, ir.Constant(I32, lane)))
    usable = b.fcmp_ordered(">", largest, ir.Constant(F32, 1e-30))
    factor = b.select(usable, b.fdiv(ir.Constant(F32, 127.0), largest), ir.Constant(F32, 0.0))
    total = integers([0] * LANES)
    order = [4 * (i // 4) + (0, 2, 1, 3)[i % 4] for i in range(LANES)]
    for part, half in enumerate(halves):
        shifted = b.fadd(b.fmul(half, spread(b, factor)), constant(ROUND))
        numbers = b.sub(b.bitcast(shifted, INTS), b.bitcast(constant(ROUND), INTS))
        total = b.add(total, numbers)
        kind = ir.VectorType(I16, LANES)
        ordered = b.shuffle_vector(b.trunc(numbers, kind), ir.Constant(kind, ir.Undefined), integers(order))
        place = b.inttoptr(b.add(target, ir.Constant(I64, 2 * LANES * part)), kind.as_pointer())
        b.store(ordered, place).align = 2
    whole = call(b, "llvm.vector.reduce.add.v16i32", I32, total)
    b.store(b.mul(whole, ir.Constant(I32, -128)), b.inttoptr(correction, I32.as_pointer()))
    return b.fadd(b.select(usable, b.fdiv(largest, ir.Constant(F32, 127.0)), ir.Constant(F32, 0.0)), taint)


@instruction(types.float32, types.intp)
def bfloat16_at(b: ir.IRBuilder, address: Value) -> Value:
    """The bfloat16 at an address."""
    bits = b.zext(b.load(b.inttoptr(address, I16.as_pointer())), I32)
    return b.bitcast(b.shl(bits, ir.Constant(I32, 16)), F32)
