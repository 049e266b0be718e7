"""Elementwise functions and reductions of rows, chosen by number: what a recorded step is made of besides products."""

from __future__ import annotations

from llvmlite import ir

from helix_plugin_cpu.kernels._jit import inline, instruction
from helix_plugin_cpu.kernels._math import absolute, canonical, exp, sigmoid, softplus, sqrt
from helix_plugin_cpu.kernels._memory import FLOAT, get, get_int, put
from helix_plugin_cpu.kernels._simd import (
    LANES,
    Value,
    Vec,
    broadcast,
    constant,
    f32x16,
    fma,
    load_first,
    splat,
    store,
    store_first,
)

BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
UNARY = ("copy", "negative", "exp", "sqrt", "abs", "square", "sigmoid", "silu", "softplus", "gelu", "tanh")
FUNCTIONS = {name: number for number, name in enumerate(BINARY + UNARY)}
FIRST_UNARY = len(BINARY)
REDUCTIONS = {"sum": 0, "mean": 1, "max": 2}

ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM = (FUNCTIONS[name] for name in BINARY)
COPY, NEGATIVE, EXP, SQRT, ABS, SQUARE, SIGMOID, SILU, SOFTPLUS, GELU, TANH = (FUNCTIONS[name] for name in UNARY)


@instruction(f32x16, f32x16, f32x16)
def larger(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """The larger; NaN where either is."""
    return b.select(b.or_(b.fcmp_ordered(">", x, y), b.fcmp_unordered("uno", x, x)), x, y)


@instruction(f32x16, f32x16)
def full_exp(b: ir.IRBuilder, x: Value) -> Value:
    """What `exp` lacks beyond its bounds: a factor of infinity above, of zero below, one between."""
    above = b.select(b.fcmp_ordered(">", x, constant(88.72283)), constant(float("inf")), constant(1.0))
    return b.select(b.fcmp_ordered("<", x, constant(-88.0)), constant(0.0), above)


@instruction(f32x16, f32x16, f32x16, f32x16)
def near_zero(b: ir.IRBuilder, x: Value, inside: Value, outside: Value) -> Value:
    """`inside` where |x| < 5/8."""
    low, high = b.fcmp_ordered(">", x, constant(-0.625)), b.fcmp_ordered("<", x, constant(0.625))
    return b.select(b.and_(low, high), inside, outside)


@inline
def tanh(x: Vec) -> Vec:
    """The hyperbolic tangent of each lane."""
    # A polynomial near zero, where the difference below would cancel (Cephes' coefficients).
    q = x * x
    p = fma(splat(-5.70498872745e-3), q, splat(2.06390887954e-2))
    p = fma(p, q, splat(-5.37397155531e-2))
    p = fma(p, q, splat(1.33314422036e-1))
    p = fma(p, q, splat(-3.33332819422e-1))
    return near_zero(x, fma(p * q, x, x), 1.0 - 2.0 / (exp(canonical(x) * 2.0) + 1.0))


@inline
def unary(function: int, x: Vec) -> Vec:
    """A function of one argument, chosen by its number, of each lane."""
    if function == COPY:
        return x
    if function == NEGATIVE:
        return -x
    if function == EXP:
        return exp(canonical(x)) * full_exp(x)
    if function == SQRT:
        return sqrt(x)
    if function == ABS:
        return absolute(x)
    if function == SQUARE:
        return x * x
    if function == SIGMOID:
        return sigmoid(x)
    if function == SILU:
        return x * sigmoid(x)
    if function == SOFTPLUS:
        return softplus(x)
    if function == GELU:
        # 1 + tanh(y) = 2 sigmoid(2 y)
        return x * sigmoid(1.5957691216057308 * fma(0.044715 * x * x, x, x))
    return tanh(x)


@inline
def binary(function: int, x: Vec, y: Vec) -> Vec:
    """A function of two arguments, chosen by its number, of each lane."""
    if function == ADD:
        return x + y
    if function == SUBTRACT:
        return x - y
    if function == MULTIPLY:
        return x * y
    if function == DIVIDE:
        return x / y
    if function == MAXIMUM:
        return larger(x, y)
    return -larger(-x, -y)


@inline
def take(address: int, step: int, column: int, count: int, scratch: int) -> Vec:
    """Sixteen floats of a row that are `step` floats apart, from `column` on."""
    if step == 1:
        return load_first(address + FLOAT * column, count)
    if step == 0:
        return broadcast(address)
    for i in range(min(count, LANES)):
        put(scratch + FLOAT * i, get(address + FLOAT * step * (column + i)))
    return load_first(scratch, count)


@inline
def pointwise(
    function: int, out: int, out_step: int, x: int, x_step: int, y: int, y_step: int,
    first: int, last: int, lo: int, hi: int, scratch: int,
) -> None:  # fmt: skip
    """Rows first..last-1, columns lo..hi-1. out, x and y are tables of the addresses of rows."""
    for row in range(first, last):
        target, x_row = get_int(out + 8 * row), get_int(x + 8 * row)
        y_row = get_int(y + 8 * row) if function < FIRST_UNARY else 0
        for c in range(lo, hi, LANES):
            left = hi - c
            value = take(x_row, x_step, c, left, scratch)
            if function < FIRST_UNARY:
                value = binary(function, value, take(y_row, y_step, c, left, scratch))
            else:
                value = unary(function, value)
            if out_step == 1:
                store_first(target + FLOAT * c, value, left)
            else:
                store(scratch, value)
                for i in range(min(left, LANES)):
                    put(target + FLOAT * out_step * (c + i), get(scratch + FLOAT * i))


@inline
def reduce(function: int, out: int, x: int, x_step: int, columns: int, first: int, last: int, scratch: int) -> None:
    """The sum, the mean or the maximum of each row."""
    for row in range(first, last):
        x_row = get_int(x + 8 * row)
        whole = columns - columns % LANES
        if function == 2:
            best = get(x_row)
            for c in range(columns):
                value = get(x_row + FLOAT * x_step * c)
                if value > best or value != value:
                    best = value
                if best != best:
                    break
            put(get_int(out + 8 * row), best)
        else:
            total = splat(0.0)
            for c in range(0, whole, LANES):
                total = total + take(x_row, x_step, c, LANES, scratch)
            store(scratch, total)
            result = 0.0
            for i in range(LANES):
                result += get(scratch + FLOAT * i)
            for c in range(whole, columns):
                result += get(x_row + FLOAT * x_step * c)
            put(get_int(out + 8 * row), result / columns if function == 1 else result)
