"""Exponentials and what is made of them, on sixteen floats."""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types

from helix_plugin_cpu.kernels._jit import inline, instruction
from helix_plugin_cpu.kernels._simd import (
    F32,
    FLOATS,
    I16,
    INTS,
    LANES,
    Value,
    Vec,
    call,
    constant,
    f32x16,
    fma,
    integers,
    multiply_add,
    splat,
    spread,
)

LOG2_E = math.log2(math.e)
LN_2 = math.log(2)


# 2^f on [-1/2, 1/2], minimax in ulp under two conditions: its value at 0 is 1 and its slope there is ln 2. The states
# of a slowly decaying scan are sums over 1 / (1 - decay) steps, and keep this precision only with them.
_EXP2 = (
    1.0,
    0.6931471824645996,
    0.2402231451504677,
    0.05550601949925959,
    0.009668233899941762,
    0.001328212235778477,
)
# log(1 + e) / e on [0, 1], minimax in relative error (3e-8): no division.
_LOG1P = (
    0.9999999698819677,
    -0.4999949314926986,
    0.3331909689700061,
    -0.24842982586884108,
    0.19106007429070396,
    -0.13663246048380756,
    0.07822594438758944,
    -0.029505228954797128,
    0.0052326907057832035,
)
EXP2_WITHIN = 125.0
_ROUND = 1.5 * 2**23  # adding it leaves the nearest integer in the low bits of the mantissa


def _clamp(b: ir.IRBuilder, x: Value, low: float, high: float) -> Value:
    """x within bounds. NaN compares false and stays."""
    x = b.select(b.fcmp_ordered("<", x, constant(low)), constant(low), x)
    return b.select(b.fcmp_ordered(">", x, constant(high)), constant(high), x)


def _two_to(b: ir.IRBuilder, shifted: Value, fraction: Value) -> Value:
    """2^(n + fraction), n in the low bits of `shifted`, added to the exponent of the polynomial's value."""
    p = constant(_EXP2[-1])
    for c in _EXP2[-2::-1]:
        p = multiply_add(b, p, fraction, constant(c))
    exponent = b.shl(b.bitcast(shifted, INTS), integers([23] * LANES))
    return b.bitcast(b.add(b.bitcast(p, INTS), exponent), FLOATS)


@instruction(f32x16, f32x16)
def exp2(b: ir.IRBuilder, x: Value) -> Value:
    """2^x within 2.2 ulp; exactly 0 from -127 down, infinity from 128 up, linear where floats denormalise.

    A NaN must be canonical (see `canonical`): the low bits of another one would be taken for an exponent.
    """
    x = _clamp(b, x, -127.0, 128.0)
    shifted = b.fadd(x, constant(_ROUND))
    return _two_to(b, shifted, b.fsub(x, b.fsub(shifted, constant(_ROUND))))


@instruction(f32x16, f32x16)
def exp2_within(b: ir.IRBuilder, x: Value) -> Value:
    """`exp2` for x in -EXP2_WITHIN..EXP2_WITHIN. Two bounds less: they cost as much as multiplications do."""
    shifted = b.fadd(x, constant(_ROUND))
    return _two_to(b, shifted, b.fsub(x, b.fsub(shifted, constant(_ROUND))))


@instruction(f32x16, f32x16, f32x16)
def larger_magnitude(b: ir.IRBuilder, largest: Value, x: Value) -> Value:
    """The larger of `largest` >= 0 and |x|; NaN is larger than any number."""
    bits, other = b.bitcast(largest, INTS), b.and_(b.bitcast(x, INTS), integers([0x7FFFFFFF] * LANES))
    return b.bitcast(b.select(b.icmp_signed(">", other, bits), other, bits), FLOATS)


@instruction(types.boolean, f32x16, types.float64)
def all_within(b: ir.IRBuilder, x: Value, bound: Value) -> Value:
    """Whether |x| < bound in every lane. NaN is not."""
    below = b.fcmp_ordered("<", call(b, "llvm.fabs.v16f32", FLOATS, x), spread(b, b.fptrunc(bound, F32)))
    return b.icmp_signed("==", b.bitcast(below, I16), ir.Constant(I16, -1))


@instruction(f32x16, f32x16)
def exp(b: ir.IRBuilder, x: Value) -> Value:
    """e^x within 2.7 ulp for x in -87..88, held at its values for -88 and 88.7 outside."""
    x = _clamp(b, x, -88.0, 88.7)
    high = float(np.float32(LOG2_E))
    shifted = multiply_add(b, x, constant(high), constant(_ROUND))
    whole = b.fsub(shifted, constant(_ROUND))
    fraction = multiply_add(b, x, constant(high), b.fneg(whole))
    fraction = multiply_add(b, x, constant(LOG2_E - high), fraction)
    return _two_to(b, shifted, fraction)


@instruction(f32x16, f32x16)
def absolute(b: ir.IRBuilder, x: Value) -> Value:
    """|x| of each lane."""
    return call(b, "llvm.fabs.v16f32", FLOATS, x)


@instruction(f32x16, f32x16)
def sqrt(b: ir.IRBuilder, x: Value) -> Value:
    """The square root of each lane."""
    return call(b, "llvm.sqrt.v16f32", FLOATS, x)


@instruction(f32x16, f32x16, f32x16)
def maximum(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """The larger; x where either is NaN."""
    return b.select(b.fcmp_ordered(">", y, x), y, x)


@instruction(f32x16, f32x16)
def positive_part(b: ir.IRBuilder, x: Value) -> Value:
    """max(x, 0); NaN stays."""
    return b.select(b.fcmp_ordered("<", x, constant(0.0)), constant(0.0), x)


@instruction(f32x16, f32x16)
def canonical(b: ir.IRBuilder, x: Value) -> Value:
    """x, with one and the same NaN for every NaN."""
    return b.select(b.fcmp_ordered("ord", x, x), x, constant(math.nan))


@instruction(f32x16, f32x16, types.float64, types.float64)
def bounded(b: ir.IRBuilder, x: Value, low: Value, high: Value) -> Value:
    """x between low and high. NaN stays."""
    below, above = spread(b, b.fptrunc(low, F32)), spread(b, b.fptrunc(high, F32))
    x = b.select(b.fcmp_ordered("<", x, below), below, x)
    return b.select(b.fcmp_ordered(">", x, above), above, x)


@inline
def sigmoid(x: Vec) -> Vec:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + exp(-canonical(x)))


@inline
def softplus(x: Vec) -> Vec:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    e = exp(-absolute(canonical(x)))
    p = splat(_LOG1P[8])
    p = fma(p, e, splat(_LOG1P[7]))
    p = fma(p, e, splat(_LOG1P[6]))
    p = fma(p, e, splat(_LOG1P[5]))
    p = fma(p, e, splat(_LOG1P[4]))
    p = fma(p, e, splat(_LOG1P[3]))
    p = fma(p, e, splat(_LOG1P[2]))
    p = fma(p, e, splat(_LOG1P[1]))
    p = fma(p, e, splat(_LOG1P[0]))
    return fma(e, p, positive_part(x))


@inline
def silu_slope(x: Vec, gate: Vec) -> Vec:
    """The derivative of x sigmoid(x), from gate = sigmoid(x)."""
    return gate * (1.0 + x * (1.0 - gate))
