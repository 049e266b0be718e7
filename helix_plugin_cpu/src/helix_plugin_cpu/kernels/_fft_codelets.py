"""Butterflies of the Fourier transform as straight-line vector code, generated for each radix.

A point is a complex number for each of sixteen channels: a vector of real parts, then one of imaginary parts. Each
instruction takes the R points of one butterfly, a fixed stride apart, and leaves the results in their place. Forward
transforms decimate in frequency and inverse ones in time, so that neither needs a permutation.

Source of the method: Cooley and Tukey, An Algorithm for the Machine Calculation of Complex Fourier Series, 1965.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from helix_plugin_cpu.kernels._jit import register
from helix_plugin_cpu.kernels._simd import F32, FLOATS, I64, VECTOR, Value, constant, multiply_add, spread, vector_at

POINT = 2 * VECTOR
"""Bytes of a point."""

LEAF = 8
"""Points of the innermost transform."""

RADICES = (4, 8)
TOP_RADICES = (8, 16)

HALF = math.sqrt(0.5)


class Point(NamedTuple):
    """A vector of complex numbers: their real and their imaginary parts."""

    re: Value
    im: Value


def _add(b: ir.IRBuilder, x: Point, y: Point) -> Point:
    return Point(b.fadd(x.re, y.re), b.fadd(x.im, y.im))


def _sub(b: ir.IRBuilder, x: Point, y: Point) -> Point:
    return Point(b.fsub(x.re, y.re), b.fsub(x.im, y.im))


def _times(b: ir.IRBuilder, x: Point, w: Point) -> Point:
    re = multiply_add(b, b.fneg(x.im), w.im, b.fmul(x.re, w.re))
    return Point(re, multiply_add(b, x.im, w.re, b.fmul(x.re, w.im)))


def _times_conj(b: ir.IRBuilder, x: Point, w: Point) -> Point:
    """x times the conjugate of w."""
    re = multiply_add(b, x.im, w.im, b.fmul(x.re, w.re))
    return Point(re, multiply_add(b, b.fneg(x.re), w.im, b.fmul(x.im, w.re)))


def _add_and_sub(b: ir.IRBuilder, x: Point, y: Point, w: complex) -> tuple[Point, Point]:
    """x + w y and x - w y, for a root of unity w."""
    if abs(w - 1) < 1e-12:
        return _add(b, x, y), _sub(b, x, y)
    if abs(abs(w.imag) - 1) < 1e-12:  # i or -i
        y = Point(b.fneg(y.im), y.re) if w.imag > 0 else Point(y.im, b.fneg(y.re))
        return _add(b, x, y), _sub(b, x, y)
    if abs(abs(w.real) - abs(w.imag)) < 1e-12:  # an eighth of a turn: two additions, then the scale with the sum
        sign = 1.0 if w.real * w.imag > 0 else -1.0
        # (1 + i s) y = (re - s im) + i (im + s re)
        re = b.fsub(y.re, y.im) if sign > 0 else b.fadd(y.re, y.im)
        im = b.fadd(y.im, y.re) if sign > 0 else b.fsub(y.im, y.re)
        scale = w.real
    else:
        # c (1 + i t) y with t = tan: six multiply-adds for the butterfly
        t = w.imag / w.real
        re = multiply_add(b, y.im, constant(-t), y.re)
        im = multiply_add(b, y.re, constant(t), y.im)
        scale = w.real
    plus, minus = constant(scale), constant(-scale)
    return (
        Point(multiply_add(b, re, plus, x.re), multiply_add(b, im, plus, x.im)),
        Point(multiply_add(b, re, minus, x.re), multiply_add(b, im, minus, x.im)),
    )


def dft(b: ir.IRBuilder, x: Sequence[Point], sign: int) -> list[Point]:
    """y_k = Σ_j x_j exp(sign 2πi jk / n), for any n; even n are halved, odd ones summed by pairs."""
    n = len(x)
    if n == 1:
        return list(x)
    if n % 2 == 0:
        even, odd = dft(b, x[0::2], sign), dft(b, x[1::2], sign)
        pairs = [_add_and_sub(b, even[k], odd[k], cmath.exp(sign * 2j * math.pi * k / n)) for k in range(n // 2)]
        return [p[0] for p in pairs] + [p[1] for p in pairs]
    half = range(1, n // 2 + 1)
    plus = [_add(b, x[j], x[n - j]) for j in half]
    minus = [_sub(b, x[j], x[n - j]) for j in half]
    first = x[0]
    for p in plus:
        first = _add(b, first, p)
    low, high = [], []
    for k in half:
        # x_0 + Σ_j cos(2π jk/n) plus_j  ±  i Σ_j sin(2π jk/n) minus_j
        re, im = x[0]
        turn_re, turn_im = constant(0.0), constant(0.0)
        for j in half:
            angle = sign * 2 * math.pi * j * k / n
            c, s = constant(math.cos(angle)), constant(math.sin(angle))
            re, im = multiply_add(b, plus[j - 1].re, c, re), multiply_add(b, plus[j - 1].im, c, im)
            turn_re = multiply_add(b, minus[j - 1].im, s, turn_re)
            turn_im = multiply_add(b, minus[j - 1].re, s, turn_im)
        low.append(Point(b.fsub(re, turn_re), b.fadd(im, turn_im)))
        high.append(Point(b.fadd(re, turn_re), b.fsub(im, turn_im)))
    return [first, *low, *reversed(high)]


# Memory.


def _load(b: ir.IRBuilder, address: Value) -> Value:
    value = b.load(vector_at(b, address))
    value.align = 4
    return value


def _store(b: ir.IRBuilder, address: Value, value: Value) -> None:
    b.store(value, vector_at(b, address)).align = 4


def _at(b: ir.IRBuilder, address: Value, stride: Value | int, k: int) -> Value:
    if k == 0:
        return address
    step = ir.Constant(I64, stride * k) if isinstance(stride, int) else b.mul(stride, ir.Constant(I64, k))
    return b.add(address, step)


def _load_points(b: ir.IRBuilder, address: Value, stride: Value | int, count: int) -> list[Point]:
    places = [_at(b, address, stride, k) for k in range(count)]
    return [Point(_load(b, place), _load(b, _at(b, place, VECTOR, 1))) for place in places]


def _store_points(b: ir.IRBuilder, address: Value, stride: Value | int, points: Sequence[Point]) -> None:
    for k, point in enumerate(points):
        place = _at(b, address, stride, k)
        _store(b, place, point.re)
        _store(b, _at(b, place, VECTOR, 1), point.im)


def _factors(b: ir.IRBuilder, address: Value, count: int) -> list[Point]:
    """`count` complex numbers of a table, in every lane."""

    def one(i: int) -> Value:
        return spread(b, b.load(b.inttoptr(_at(b, address, 4, i), F32.as_pointer())))

    return [Point(one(2 * k), one(2 * k + 1)) for k in range(count)]


# Instructions: functions of kernels by radix.


def _instructions(make: Callable[[int], Any], radices: Sequence[int], arguments: int) -> dict[int, Any]:
    found = {}
    for radix in radices:
        emit = make(radix)

        def function(*args: Any, _name: str = emit.__qualname__) -> Any:
            raise TypeError(f"{_name} exists only in compiled code")

        function.__doc__ = emit.__doc__
        register(function, types.void, [[types.intp] * arguments], emit)
        found[radix] = function
    return found


def _dif(radix: int) -> Any:
    def emit(b: ir.IRBuilder, x: Value, stride: Value, table: Value) -> None:
        y = dft(b, _load_points(b, x, stride, radix), -1)
        w = _factors(b, table, radix - 1)
        _store_points(b, x, stride, [y[0], *(_times(b, y[k], w[k - 1]) for k in range(1, radix))])

    return emit


def _dit(radix: int) -> Any:
    def emit(b: ir.IRBuilder, x: Value, stride: Value, table: Value) -> None:
        y = _load_points(b, x, stride, radix)
        w = _factors(b, table, radix - 1)
        turned = [y[0], *(_times_conj(b, y[k], w[k - 1]) for k in range(1, radix))]
        _store_points(b, x, stride, dft(b, turned, +1))

    return emit


def _quarter_weights(radix: int) -> list[complex]:
    return [cmath.exp(-0.5j * math.pi * k / radix) for k in range(radix)]


def _take(radix: int) -> Any:
    def emit(b: ir.IRBuilder, x: Value, span: Value, table: Value, rows: Value, row: Value, valid: Value) -> None:
        """Rows of real numbers; absent ones (from `valid` on) are zeros."""
        places = [_at(b, rows, row, k) for k in range(radix)]
        with b.if_else(b.icmp_signed(">=", valid, ir.Constant(I64, radix))) as (whole, part):
            with whole:
                full = [_load(b, place) for place in places]
                full_block = b.block
            with part:
                some = []
                for k, place in enumerate(places):
                    before = b.block
                    with b.if_then(b.icmp_signed("<", ir.Constant(I64, k), valid)):
                        value = _load(b, place)
                        present = b.block
                    some.append(_either(b, (value, present), (constant(0.0), before)))
                some_block = b.block
        values = [_either(b, (p, full_block), (q, some_block)) for p, q in zip(full, some, strict=True)]
        points = [
            Point(b.fmul(v, constant(w.real)), b.fmul(v, constant(w.imag)))
            for v, w in zip(values, _quarter_weights(radix), strict=True)
        ]
        y = dft(b, points, -1)
        w = _factors(b, table, radix)
        _store_points(b, x, span, [_times(b, y[k], w[k]) for k in range(radix)])

    return emit


def _either(b: ir.IRBuilder, *values: tuple[Value, ir.Block]) -> Value:
    phi = b.phi(FLOATS)
    for value, block in values:
        phi.add_incoming(value, block)
    return phi


def _give(radix: int) -> Any:
    def emit(b: ir.IRBuilder, x: Value, span: Value, table: Value, rows: Value, row: Value, valid: Value) -> None:
        """The real parts of the rows before `valid`."""
        y = _load_points(b, x, span, radix)
        w = _factors(b, table, radix)
        z = dft(b, [_times_conj(b, y[k], w[k]) for k in range(radix)], +1)
        for k, (p, weight) in enumerate(zip(z, _quarter_weights(radix), strict=True)):
            real = multiply_add(b, p.im, constant(weight.imag), b.fmul(p.re, constant(weight.real)))
            with b.if_then(b.icmp_signed("<", ir.Constant(I64, k), valid)):
                _store(b, _at(b, rows, row, k), real)

    return emit


def _leaf_spectrum(radix: int) -> Any:
    def emit(b: ir.IRBuilder, x: Value, scale: Value) -> None:
        """x = the transform of x, times a factor."""
        factor = _load(b, scale)
        y = dft(b, _load_points(b, x, POINT, radix), -1)
        _store_points(b, x, POINT, [Point(b.fmul(p.re, factor), b.fmul(p.im, factor)) for p in y])

    return emit


def _leaf_product(radix: int) -> Any:
    def emit(b: ir.IRBuilder, x: Value, h: Value) -> None:
        """x = x convolved with the filter of the spectrum h."""
        y = dft(b, _load_points(b, x, POINT, radix), -1)
        f = _load_points(b, h, POINT, radix)
        _store_points(b, x, POINT, dft(b, [_times(b, p, q) for p, q in zip(y, f, strict=True)], +1))

    return emit


def _leaf_adjoint(radix: int) -> Any:
    def emit(b: ir.IRBuilder, x: Value, v: Value, h: Value, total: Value) -> None:
        """total += x conj(v) and x = x conj(h), for transforms of x and v."""
        inputs = dft(b, _load_points(b, v, POINT, radix), -1)
        _store_points(b, v, POINT, inputs)
        y = dft(b, _load_points(b, x, POINT, radix), -1)
        products = []
        for k, p in enumerate(y):
            (input_k,) = _load_points(b, _at(b, v, POINT, k), POINT, 1)
            (filter_k,) = _load_points(b, _at(b, h, POINT, k), POINT, 1)
            (sum_k,) = _load_points(b, _at(b, total, POINT, k), POINT, 1)
            _store_points(b, _at(b, total, POINT, k), POINT, [_add(b, sum_k, _times_conj(b, p, input_k))])
            products.append(_times_conj(b, p, filter_k))
        _store_points(b, x, POINT, dft(b, products, +1))

    return emit


def _leaf_inverse(radix: int) -> Any:
    def emit(b: ir.IRBuilder, x: Value, scale: Value) -> None:
        """x = the points of the spectrum x, times a factor."""
        factor = _load(b, scale)
        points = [Point(b.fmul(p.re, factor), b.fmul(p.im, factor)) for p in _load_points(b, x, POINT, radix)]
        _store_points(b, x, POINT, dft(b, points, +1))

    return emit


dif = _instructions(_dif, RADICES, 3)
"""`dif[R](x, stride, table)`: R points, transformed, times the table's R - 1 factors (for all but the first)."""

dit = _instructions(_dit, RADICES, 3)
"""`dit[R](x, stride, table)`: the way back, without the division by R."""

take = _instructions(_take, TOP_RADICES, 6)
"""`take[R](x, span, table, rows, row, valid)`: the outermost forward pass, from real rows `row` bytes apart."""

give = _instructions(_give, TOP_RADICES, 6)
"""`give[R](x, span, table, rows, row, valid)`: the outermost inverse pass, to real rows."""

(leaf_spectrum,) = _instructions(_leaf_spectrum, [LEAF], 2).values()
(leaf_product,) = _instructions(_leaf_product, [LEAF], 2).values()
(leaf_adjoint,) = _instructions(_leaf_adjoint, [LEAF], 4).values()
(leaf_inverse,) = _instructions(_leaf_inverse, [LEAF], 2).values()
