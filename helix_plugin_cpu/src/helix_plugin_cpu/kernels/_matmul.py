"""Products of small matrices that lie in a core's cache, register by register.

A tile of the result stays in registers while the depth runs. Its size follows the CPU's registers: eight rows of two
vectors fill half of AVX-512's thirty-two; elsewhere a vector of sixteen floats takes two or four registers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from helix_plugin_cpu._isa import features
from helix_plugin_cpu.kernels._jit import instruction, part
from helix_plugin_cpu.kernels._memory import FLOAT
from helix_plugin_cpu.kernels._simd import (
    F32,
    FLOATS,
    I64,
    LANES,
    VECTOR,
    Value,
    constant,
    integers,
    multiply_add,
    spread,
    vector_at,
)

WIDE = "avx512f" in features()
ROWS = 8 if WIDE else 4
"""Rows of a tile. Eight divides what `multiply` gets."""

ZERO, ADD, SCALE = 0, 1, 2
"""What the result starts from: nothing, what is there, or that with each row times a factor."""


def _tile(vectors: int) -> Any:
    """A tile of ROWS rows and so many vectors: its code."""

    @instruction(types.void, *([types.intp] * 10))
    def tile(
        b: ir.IRBuilder, c: Value, c_row: Value, left: Value, left_row: Value, left_col: Value,
        right: Value, right_row: Value, depth: Value, start: Value, factors: Value,
    ) -> None:  # fmt: skip
        def at(base: Value, *steps: Value) -> Value:
            for step in steps:
                base = b.add(base, step)
            return base

        def number(i: int) -> Value:
            return ir.Constant(I64, i)

        def read(address: Value) -> Value:
            value = b.load(vector_at(b, address))
            value.align = FLOAT
            return value

        def read_one(address: Value) -> Value:
            return spread(b, b.load(b.inttoptr(address, F32.as_pointer())))

        rows = [at(c, b.mul(c_row, number(i))) for i in range(ROWS)]
        cells = [at(row, number(VECTOR * j)) for row in rows for j in range(vectors)]
        origin = b.block
        some = b.append_basic_block("some")
        scaled = b.append_basic_block("scaled")
        loop = b.append_basic_block("loop")
        done = b.append_basic_block("done")
        b.cbranch(b.icmp_signed("==", start, number(ZERO)), loop, some)
        b.position_at_end(some)
        found = [read(cell) for cell in cells]
        b.cbranch(b.icmp_signed("==", start, number(ADD)), loop, scaled)
        b.position_at_end(scaled)
        each = [read_one(at(factors, number(FLOAT * i))) for i in range(ROWS)]
        times = [b.fmul(found[i], each[i // vectors]) for i in range(len(cells))]
        b.branch(loop)
        b.position_at_end(loop)
        sums = [b.phi(FLOATS) for _ in cells]
        left_at, right_at, left_over = b.phi(I64), b.phi(I64), b.phi(I64)
        for block, values in ((origin, [constant(0.0)] * len(cells)), (some, found), (scaled, times)):
            for phi, value in zip([*sums, left_at, right_at, left_over], [*values, left, right, depth], strict=True):
                phi.add_incoming(value, block)
        columns = [read(at(right_at, number(VECTOR * j))) for j in range(vectors)]
        new = []
        for i in range(ROWS):
            x = read_one(at(left_at, b.mul(left_row, number(i))))
            new += [multiply_add(b, x, columns[j], sums[i * vectors + j]) for j in range(vectors)]
        rest = b.sub(left_over, number(1))
        further = (b.add(left_at, left_col), b.add(right_at, right_row), rest)
        for phi, value in zip([*sums, left_at, right_at, left_over], [*new, *further], strict=True):
            phi.add_incoming(value, loop)
        b.cbranch(b.icmp_signed(">", rest, number(0)), loop, done)
        b.position_at_end(done)
        for cell, value in zip(cells, new, strict=True):
            b.store(value, vector_at(b, cell)).align = FLOAT

    return tile


_two, _one = _tile(2), _tile(1)


@part
def multiply(
    c: int, c_row: int, rows: int, width: int, left: int, left_row: int, left_col: int,
    right: int, right_row: int, depth: int, start: int, factors: int,
) -> None:  # fmt: skip
    """C (rows, width) = start + left (rows, depth) right (depth, width). Strides in floats; depth is 1 or more.

    rows is a multiple of 8 and width of 16: matrices are padded. left may be transposed: it has two strides.
    factors (rows,) scale the rows of C if `start` is SCALE.
    """
    c_row, left_row, left_col, right_row = FLOAT * c_row, FLOAT * left_row, FLOAT * left_col, FLOAT * right_row
    w = 0
    while w < width:
        for i in range(0, rows, ROWS):
            target, source = c + i * c_row + FLOAT * w, left + i * left_row
            if WIDE and w + 2 * LANES <= width:
                _two(
                    target,
                    c_row,
                    source,
                    left_row,
                    left_col,
                    right + FLOAT * w,
                    right_row,
                    depth,
                    start,
                    factors + FLOAT * i,
                )
            else:
                _one(
                    target,
                    c_row,
                    source,
                    left_row,
                    left_col,
                    right + FLOAT * w,
                    right_row,
                    depth,
                    start,
                    factors + FLOAT * i,
                )
        w += 2 * LANES if WIDE and w + 2 * LANES <= width else LANES


@instruction(types.void, types.intp, types.intp, types.intp, types.intp)
def _turn(b: ir.IRBuilder, source: Value, source_row: Value, target: Value, target_row: Value) -> None:
    """Sixteen rows of sixteen floats, transposed; rows so many bytes apart."""
    rows = []
    for i in range(LANES):
        row = b.load(vector_at(b, b.add(source, b.mul(source_row, ir.Constant(I64, i)))))
        row.align = FLOAT
        rows.append(row)
    for width in (1, 2, 4, 8):
        # Exchange the off-diagonal blocks of `width` of every block of twice that.
        low = integers([i + LANES - width if i & width else i for i in range(LANES)])
        high = integers([i + LANES if i & width else i + width for i in range(LANES)])
        for i in range(LANES):
            if not i & width:
                x, y = rows[i], rows[i + width]
                rows[i], rows[i + width] = b.shuffle_vector(x, y, low), b.shuffle_vector(x, y, high)
    for i, row in enumerate(rows):
        b.store(row, vector_at(b, b.add(target, b.mul(target_row, ir.Constant(I64, i))))).align = FLOAT


@part
def transpose(source: int, source_row: int, rows: int, width: int, target: int, target_row: int) -> None:
    """(rows, width) -> (width, rows), both multiples of 16. Strides in floats."""
    for i in range(0, rows, LANES):
        for j in range(0, width, LANES):
            here, there = FLOAT * (i * source_row + j), FLOAT * (j * target_row + i)
            _turn(source + here, FLOAT * source_row, target + there, FLOAT * target_row)
