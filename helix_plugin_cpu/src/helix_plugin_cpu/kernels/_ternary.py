"""Sums of two-bit weights times eight-bit activations, in sixteen int32 lanes.

Sixty-four bytes of weights are sixteen words. A shift and a mask leave the codes of every other byte of a plane in
the halves of the words. The levels of the activations lie in that order, as 16-bit numbers, so that LLVM makes one
instruction of a product and the sum of its pairs (pmaddwd, or vpdpwssd with the addition) on every x86. Sums are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from helix_plugin_cpu.kernels._integers import HALVES, ROUND, i32x16, pair_sums
from helix_plugin_cpu.kernels._jit import instruction
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
    f32x16,
    integers,
    spread,
)

PLANES = 4
CHUNK = 64
"""Bytes of a row of weights that are multiplied at a time."""
CHUNK_LEVELS = 2 * PLANES * CHUNK
"""Bytes of the levels that they are multiplied with."""

Ints = Any  # sixteen int32, in the annotations of kernels


def picked(lanes: Sequence[int]) -> Value:
    """Which lanes a shuffle takes."""
    return ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))


@instruction(i32x16, i32x16, i32x16, types.intp)
def add_ternary(b: ir.IRBuilder, total: Value, words: Value, levels: Value) -> Value:
    """total + the codes in 64 bytes times the CHUNK_LEVELS bytes at `levels`."""
    for part in range(2 * PLANES):
        shift = 2 * (part // 2) + 8 * (part % 2)
        shifted = b.lshr(words, integers([shift] * LANES)) if shift else words
        codes = b.bitcast(b.and_(shifted, integers([0x00030003] * LANES)), HALVES)
        x = b.load(b.inttoptr(b.add(levels, ir.Constant(I64, VECTOR * part)), HALVES.as_pointer()))
        x.align = 2
        total = b.add(total, pair_sums(b, codes, x))
    return total


@instruction(f32x16, f32x16, f32x16)
def larger_sizes(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """max(x, |y|); x where y is NaN."""
    size = call(b, "llvm.fabs.v16f32", FLOATS, y)
    return b.select(b.fcmp_ordered(">", size, x), size, x)


@instruction(types.float32, f32x16)
def largest_lane(b: ir.IRBuilder, x: Value) -> Value:
    """The largest lane."""
    return call(b, "llvm.vector.reduce.fmax.v16f32", F32, x)


@instruction(types.float32, f32x16)
def sum_floats(b: ir.IRBuilder, x: Value) -> Value:
    """Add up the lanes in order."""
    return call(b, "llvm.vector.reduce.fadd.v16f32", F32, ir.Constant(F32, 0.0), x)


@instruction(types.int32, types.intp, types.intp, types.float32, types.intp)
def write_levels(b: ir.IRBuilder, x: Value, count: Value, factor: Value, target: Value) -> Value:
    """round(factor x) of the first `count` of CHUNK floats, zeros behind: even ones, then odd ones. Returns their sum.

    Rounds by adding 1.5 * 2^23, to the nearest and ties to even; |factor x| must be below 2^22.
    """
    shorts = ir.VectorType(I16, LANES)
    parts, total = [], integers([0] * LANES)
    for i in range(CHUNK // LANES):
        left = b.sub(count, ir.Constant(I64, LANES * i))
        values = emit_load_first(b, b.add(x, ir.Constant(I64, VECTOR * i)), left)
        shifted = b.fadd(b.fmul(values, spread(b, factor)), constant(ROUND))
        numbers = b.sub(b.bitcast(shifted, INTS), b.bitcast(constant(ROUND), INTS))
        total = b.add(total, numbers)
        parts.append(b.trunc(numbers, shorts))
    both = [b.shuffle_vector(*parts[i : i + 2], picked(range(2 * LANES))) for i in (0, 2)]
    for odd in range(2):
        levels = b.shuffle_vector(*both, picked(range(odd, CHUNK, 2)))
        b.store(levels, b.inttoptr(b.add(target, ir.Constant(I64, VECTOR * odd)), HALVES.as_pointer())).align = 2
    return call(b, "llvm.vector.reduce.add.v16i32", I32, total)
