"""Sixteen-wide float32 arithmetic as LLVM IR, for loops that Numba's vectoriser does not get right.

LLVM turns <16 x float> into one AVX-512, two AVX2 or four NEON registers, so one source serves every CPU. Only
generic instructions are emitted: an x86-only intrinsic would abort the process on a CPU without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
F32, I1, I32, I64 = ir.FloatType(), ir.IntType(1), ir.IntType(32), ir.IntType(64)
VF, VI, VB = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES), ir.VectorType(I1, LANES)
# Contraction and reciprocals may be chosen freely; NaN, infinities and the order of sums must not.
FAST = ("contract", "arcp", "nsz")


def _exp2_coefficients() -> list[float]:
    """Of q with 2^f = 1 + f q(f) on [-1/2, 1/2], to 2^-26. In this form 2^0 is exactly 1: a decay that is one must
    still be one after a million steps."""

    def q(f: np.ndarray) -> np.ndarray:
        near_zero = np.abs(f) < 1e-12
        safe = np.where(near_zero, 1.0, f)
        return np.where(near_zero, math.log(2), np.expm1(safe * math.log(2)) / safe)

    interpolant = np.polynomial.Chebyshev.interpolate(q, 5, [-0.5, 0.5])
    return [float(c) for c in interpolant.convert(kind=np.polynomial.Polynomial).coef]


_EXP2 = _exp2_coefficients()
_LOG2E = float(np.float32(math.log2(math.e)))
_LOG2E_REST = math.log2(math.e) - _LOG2E
_ROUND = 12582912.0  # 1.5 * 2^23: adding it rounds a float to an integer in its low mantissa bits

Value = Any


class Simd:
    """Emits vector code at a builder's position. Addresses are integers, offsets count floats."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.b = builder

    def const(self, x: float) -> Value:
        """A vector with one value in every lane."""
        return ir.Constant(VF, [float(np.float32(x))] * LANES)

    def index(self, i: int) -> Value:
        """An integer constant."""
        return ir.Constant(I64, i)

    def _call(self, name: str, result: ir.Type, *args: Value) -> Value:
        functions = self.b.module.globals
        function = functions.get(name) or ir.Function(
            self.b.module, ir.FunctionType(result, [a.type for a in args]), name
        )
        return self.b.call(function, args)

    def add(self, x: Value, y: Value) -> Value:
        return self.b.fadd(x, y, flags=FAST)

    def sub(self, x: Value, y: Value) -> Value:
        return self.b.fsub(x, y, flags=FAST)

    def mul(self, x: Value, y: Value) -> Value:
        return self.b.fmul(x, y, flags=FAST)

    def div(self, x: Value, y: Value) -> Value:
        return self.b.fdiv(x, y, flags=FAST)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x y + z, rounded once."""
        return self._call("llvm.fma.v16f32", VF, x, y, z)

    def clamp(self, x: Value, low: float, high: float) -> Value:
        """x within bounds; NaN stays NaN."""
        low_v, high_v = self.const(low), self.const(high)
        x = self.b.select(self.b.fcmp_ordered("<", x, low_v), low_v, x)
        return self.b.select(self.b.fcmp_ordered(">", x, high_v), high_v, x)

    def exp2(self, x: Value, tail: Value | None = None) -> Value:
        """2^(x + tail) within 2 ulp for -126 <= x <= 127; smaller x give 2^-126, larger ones infinity."""
        x = self.clamp(x, -126.0, 128.0)
        # Without fast-math flags, or the rounding would be optimised away.
        shifted = self.b.fadd(x, self.const(_ROUND))
        fraction = self.b.fsub(x, self.b.fsub(shifted, self.const(_ROUND)))
        if tail is not None:
            fraction = self.b.fadd(fraction, tail)
        p = self.const(_EXP2[-1])
        for c in _EXP2[-2::-1]:
            p = self.fma(p, fraction, self.const(c))
        p = self.fma(p, fraction, self.const(1.0))
        exponent = self.b.add(self.b.bitcast(shifted, VI), ir.Constant(VI, [127] * LANES))
        scale = self.b.bitcast(self.b.shl(exponent, ir.Constant(VI, [23] * LANES)), VF)
        return self.b.fmul(p, scale)

    def exp(self, x: Value) -> Value:
        """e^x within 2 ulp; x log2 e is formed in two parts, since its rounding error would count |x| times."""
        whole = self.b.fmul(x, self.const(_LOG2E))
        rest = self.fma(x, self.const(_LOG2E), self.b.fneg(whole))
        return self.exp2(whole, self.clamp(self.fma(x, self.const(_LOG2E_REST), rest), -1.0, 1.0))

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + e^-x)."""
        one = self.const(1.0)
        return self.div(one, self.add(one, self.exp(self.b.fneg(x))))

    def softplus(self, x: Value) -> Value:
        """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
        zero = self.const(0.0)
        positive = self.b.select(self.b.fcmp_ordered("<", x, zero), zero, x)
        e = self.exp(self.b.fneg(self._call("llvm.fabs.v16f32", VF, x)))
        # log1p(e) = 2 artanh(s), s = e / (2 + e) <= 1/3; the series is exact to float32 after s^15.
        s = self.div(e, self.add(e, self.const(2.0)))
        s2 = self.mul(s, s)
        p = self.const(2 / 15)
        for k in (13, 11, 9, 7, 5, 3):
            p = self.fma(p, s2, self.const(2 / k))
        return self.fma(self.mul(p, s2), s, self.fma(s, self.const(2.0), positive))

    def pointer(self, address: Value, offset: Value | None = None) -> Value:
        """The pointer to float number `offset` behind an address."""
        if offset is not None:
            address = self.b.add(address, self.b.shl(offset, self.index(2)))
        return self.b.inttoptr(address, F32.as_pointer())

    def load(self, address: Value, offset: Value | None = None, mask: Value | None = None) -> Value:
        """Sixteen floats; lanes outside `mask` are 0 and not touched."""
        pointer = self.b.bitcast(self.pointer(address, offset), VF.as_pointer())
        if mask is not None:
            align = ir.Constant(I32, 4)
            return self._call("llvm.masked.load.v16f32.p0", VF, pointer, align, mask, self.const(0.0))
        value = self.b.load(pointer)
        value.align = 4
        return value

    def store(self, value: Value, address: Value, offset: Value | None = None, mask: Value | None = None) -> None:
        """Write sixteen floats, or those in `mask`."""
        pointer = self.b.bitcast(self.pointer(address, offset), VF.as_pointer())
        if mask is not None:
            self._call("llvm.masked.store.v16f32.p0", ir.VoidType(), value, pointer, ir.Constant(I32, 4), mask)
            return
        self.b.store(value, pointer).align = 4

    def broadcast(self, address: Value, offset: Value | None = None) -> Value:
        """One float in every lane."""
        scalar = self.b.load(self.pointer(address, offset))
        vector = self.b.insert_element(ir.Constant(VF, ir.Undefined), scalar, ir.Constant(I32, 0))
        return self.b.shuffle_vector(vector, ir.Constant(VF, ir.Undefined), ir.Constant(VI, [0] * LANES))

    def first(self, count: Value) -> Value:
        """The mask of the first `count` lanes."""
        count = self.b.trunc(count, I32)
        vector = self.b.insert_element(ir.Constant(VI, ir.Undefined), count, ir.Constant(I32, 0))
        vector = self.b.shuffle_vector(vector, ir.Constant(VI, ir.Undefined), ir.Constant(VI, [0] * LANES))
        return self.b.icmp_signed("<", ir.Constant(VI, list(range(LANES))), vector)

    def transpose_sum(self, vectors: Sequence[Value]) -> Value:
        """Lane n of the result is the sum over the lanes of vectors[n]; takes sixteen vectors."""
        level, width = list(vectors), 1
        while len(level) > 1:
            low = [LANES * (i // width % 2) + i - width * (i // width % 2) for i in range(LANES)]
            high = [i + width for i in low]
            low_mask, high_mask = ir.Constant(VI, low), ir.Constant(VI, high)
            level = [
                self.add(self.b.shuffle_vector(x, y, low_mask), self.b.shuffle_vector(x, y, high_mask))
                for x, y in zip(level[::2], level[1::2], strict=True)
            ]
            width *= 2
        return level[0]

    def lane_sum(self, vector: Value) -> Value:
        """The sum over lanes, as a scalar, in a fixed order."""
        for width in (8, 4, 2, 1):
            rotated = ir.Constant(VI, [(i + width) % LANES for i in range(LANES)])
            vector = self.add(vector, self.b.shuffle_vector(vector, ir.Constant(VF, ir.Undefined), rotated))
        return self.b.extract_element(vector, ir.Constant(I32, 0))

    def loop(
        self,
        count: Value,
        carried: Sequence[Value],
        body: Callable[[Value, list[Value]], Sequence[Value]],
        *,
        backwards: bool = False,
    ) -> list[Value]:
        """Run `body(step, carried) -> carried` for each step of `count`, values staying in registers."""
        b = self.b
        zero, one = self.index(0), self.index(1)
        before, inside, after = b.block, b.append_basic_block("loop"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed(">", count, zero), inside, after)
        b.position_at_end(inside)
        turn = b.phi(I64)
        turn.add_incoming(zero, before)
        phis = []
        for value in carried:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            phis.append(phi)
        step = b.sub(b.sub(count, one), turn) if backwards else turn
        results = list(body(step, list(phis)))
        following = b.add(turn, one)
        end = b.block
        turn.add_incoming(following, end)
        for phi, result in zip(phis, results, strict=True):
            phi.add_incoming(result, end)
        b.cbranch(b.icmp_signed("<", following, count), inside, after)
        b.position_at_end(after)
        finals = []
        for value, result in zip(carried, results, strict=True):
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            phi.add_incoming(result, end)
            finals.append(phi)
        return finals


def emit(arity: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a Numba function of `arity` integers from `function(simd, *values)`, which emits its code."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Sequence[Value]) -> Value:
            function(Simd(builder), *args)
            return context.get_dummy_value()

        parameters = ", ".join(f"a{i}" for i in range(arity))
        signature = types.void(*[types.intp] * arity)
        namespace: dict[str, Any] = {"answer": (signature, codegen)}
        # An intrinsic must have as many named parameters as it is called with.
        exec(f"def typed(typingctx, {parameters}):\n    return answer", namespace)
        typed = namespace["typed"]
        typed.__name__ = typed.__qualname__ = function.__name__
        typed.__module__ = function.__module__
        decorated: Callable[..., None] = intrinsic(typed)
        return decorated

    return decorate


@emit(3)
def copy16(s: Simd, source: Value, target: Value, count: Value) -> None:
    """Copy `count` vectors of sixteen floats."""

    def step(i: Value, _: list[Value]) -> list[Value]:
        at = s.b.mul(i, s.index(LANES))
        s.store(s.load(source, at), target, at)
        return []

    s.loop(count, [], step)


@emit(2)
def clear(s: Simd, address: Value, count: Value) -> None:
    """Write `count` zeros."""

    def step(i: Value, _: list[Value]) -> list[Value]:
        s.b.store(ir.Constant(F32, 0.0), s.pointer(address, i))
        return []

    s.loop(count, [], step)
