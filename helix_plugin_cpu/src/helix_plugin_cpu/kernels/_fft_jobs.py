"""Long convolution by Fourier transforms: a job is sixteen channels of a row, or of the filter.

The real row is weighted by a quarter turn over its length before it is transformed (the "right-angle" convolution).
What wraps around then comes back as the imaginary part, so that rows need no padding to twice their length.

A transform rounds every output by the size of the largest input, later ones too. So the outputs before a step to which
the row grows are computed anew, from the steps before it: `before_growth`.

Forward and inverse passes go depth first: a block is transformed, multiplied by the filter's spectrum and transformed
back while it is in the cache.

Source: Crandall and Pomerance, Prime Numbers: A Computational Perspective, section 9.5.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from helix_core.ops.long_conv import GROWTH
from helix_plugin_cpu.kernels._blocks import clear_vectors
from helix_plugin_cpu.kernels._fft_codelets import (
    LEAF,
    POINT,
    dif,
    dit,
    give,
    leaf_adjoint,
    leaf_inverse,
    leaf_product,
    leaf_spectrum,
    take,
)
from helix_plugin_cpu.kernels._fft_plan import CHUNK, LEVEL
from helix_plugin_cpu.kernels._jit import inline, kernel, part
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, prefetch, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, larger, largest, load, splat, store
from helix_plugin_cpu.kernels._storage import FLOAT32, read, size_of, write

SPECTRUM, CONVOLVE, ADJOINT, INVERSE = range(4)
NUMBERS = float(np.finfo(np.float32).max)

AHEAD = 8
"""Rows are asked for so many steps before they are needed: they are too far apart for the CPU to guess."""

dif4, dif8 = dif.values()
dit4, dit8 = dit.values()
take8, take16 = take.values()
give8, give16 = give.values()


@inline
def offset(points: int) -> int:
    """Bytes from the start of a block to a point of it."""
    return POINT * (points + (points >> 6) + (points >> 12))


@inline
def channel(group: int, channels: int) -> int:
    """A group's first channel. The last group overlaps the one before rather than be narrower."""
    return min(LANES * group, channels - LANES)


@part
def forward_pass(x: int, radix: int, columns: int, stride: int, table: int, factors: int) -> None:
    """One pass of a forward transform, from coarse blocks to fine ones: butterflies of `radix` points."""
    for chunk in range(0, columns, CHUNK):
        at, w = x + offset(chunk), table + chunk * factors
        for _ in range(min(CHUNK, columns)):
            if radix == 4:
                dif4(at, stride, w)
            else:
                dif8(at, stride, w)
            at += POINT
            w += factors


@part
def inverse_pass(x: int, radix: int, columns: int, stride: int, table: int, factors: int) -> None:
    """One pass of an inverse transform, from fine blocks to coarse ones: butterflies of `radix` points."""
    for chunk in range(0, columns, CHUNK):
        at, w = x + offset(chunk), table + chunk * factors
        for _ in range(min(CHUNK, columns)):
            if radix == 4:
                dit4(at, stride, w)
            else:
                dit8(at, stride, w)
            at += POINT
            w += factors


@part
def read_rows(x: int, top: int, columns: int, stride: int, table: int, rows: int, row: int, count: int) -> None:
    """The outermost pass from `count` real rows, `row` bytes apart, and zeros behind them."""
    whole, rest = count // columns, count % columns
    for chunk in range(0, columns, CHUNK):
        at = x + offset(chunk)
        for j in range(chunk, min(chunk + CHUNK, columns)):
            w, here, valid = table + 2 * FLOAT * top * j, rows + row * j, whole + (j < rest)
            if top == 8:
                take8(at, stride, w, here, row * columns, valid)
            else:
                take16(at, stride, w, here, row * columns, valid)
            at += POINT


@part
def write_rows(x: int, top: int, columns: int, stride: int, table: int, rows: int, row: int, count: int) -> None:
    """The outermost pass back to `count` real rows, `row` bytes apart."""
    whole, rest = count // columns, count % columns
    for chunk in range(0, columns, CHUNK):
        at = x + offset(chunk)
        for j in range(chunk, min(chunk + CHUNK, columns)):
            w, here, valid = table + 2 * FLOAT * top * j, rows + row * j, whole + (j < rest)
            if top == 8:
                give8(at, stride, w, here, row * columns, valid)
            else:
                give16(at, stride, w, here, row * columns, valid)
            at += POINT


@part
def stage_in(
    kind: float, stage: int, gap: int, source: int, row: int, gate: int, gate_row: int, first: int, stop: int,
    channels: int, steps: int,
) -> None:  # fmt: skip
    """Copy blocks first..stop-1 of strided rows, times their gates, each to dense rows `gap` bytes after the last."""
    for t in range(steps):
        for block in range(first, stop):
            d = size_of(kind) * channel(block, channels)
            prefetch(source + row * (t + AHEAD) + d)
            value = read(kind, source + row * t + d, LANES)
            if gate != 0:
                prefetch(gate + gate_row * (t + AHEAD) + d)
                value = value * read(kind, gate + gate_row * t + d, LANES)
            store(stage + gap * (block - first) + VECTOR * t, value)


@part
def stage_out(
    kind: float, stage: int, gap: int, target_kind: float, target: int, row: int, gate: int, gate_row: int,
    first: int, stop: int, channels: int, steps: int,
) -> None:  # fmt: skip
    """The way back: dense rows, times gates, to strided ones, stored as `target_kind` says."""
    for t in range(steps):
        for block in range(first, stop):
            d = channel(block, channels)
            value = load(stage + gap * (block - first) + VECTOR * t)
            if gate != 0:
                here = gate + size_of(kind) * d
                prefetch(here + gate_row * (t + AHEAD))
                value = value * read(kind, here + gate_row * t, LANES)
            to = target + size_of(target_kind) * d
            prefetch(to + row * (t + AHEAD))
            write(target_kind, to + row * t, value, LANES)


@part
def leaves(mode: int, x: int, v: int, h: int, total: int, unit: int) -> None:
    """What `mode` does with the spectra of `unit` points, a leaf after the other."""
    if mode == CONVOLVE:
        for i in range(0, POINT * unit, POINT * LEAF):
            leaf_product(x + i, h + i)
    elif mode == SPECTRUM:
        for i in range(0, POINT * unit, POINT * LEAF):
            leaf_spectrum(x + i, h)
    elif mode == ADJOINT:
        for i in range(0, POINT * unit, POINT * LEAF):
            leaf_adjoint(x + i, v + i, h + i, total + i)
    else:
        for i in range(0, POINT * unit, POINT * LEAF):
            leaf_inverse(x + i, h)


@part
def sweep(
    mode: int, x: int, v: int, h: int, total: int, top: int, inner: int, unit: int, stride: int,
    levels: int, depth: int,
) -> None:  # fmt: skip
    """Everything between the outermost passes, depth first.

    SPECTRUM  x -> its transform times the number at h
    CONVOLVE  x -> x * h, for the spectrum h
    ADJOINT   x -> correlation of x with h; total += spectrum of the correlation of x with v
    INVERSE   x -> its inverse transform times the number at h
    """
    record = 8 * LEVEL
    for block in range(0, top * stride, stride):
        for begin in range(0, inner, unit):
            at = block + offset(begin)
            for level in range(levels, levels + depth * record, record):
                size = get_int(level + 24)
                if begin % size == 0:
                    radix, columns, gap = get_int(level), get_int(level + 8), get_int(level + 16)
                    if mode != INVERSE:
                        forward_pass(x + at, radix, columns, gap, get_int(level + 32), get_int(level + 40))
                    if mode == ADJOINT:
                        forward_pass(v + at, radix, columns, gap, get_int(level + 32), get_int(level + 40))
            if mode in (CONVOLVE, ADJOINT):
                leaves(mode, x + at, v + at, h + at, total + at, unit)
            else:
                leaves(mode, x + at, v, h, total, unit)
            if mode != SPECTRUM:
                end = begin + unit
                for level in range(levels + (depth - 1) * record, levels - record, -record):
                    size = get_int(level + 24)
                    if end % size == 0:
                        start = x + block + offset(end - size)
                        radix, columns, gap = get_int(level), get_int(level + 8), get_int(level + 16)
                        inverse_pass(start, radix, columns, gap, get_int(level + 32), get_int(level + 40))


@part
def before_growth(rows: int, row: int, count: int) -> int:
    """How many of `count` rows of sixteen, `row` bytes apart, come before the first of a size near the largest.

    Near is within a factor of GROWTH. Where some rows hold no numbers: how many come before the first of those.
    """
    peak = splat(0.0)
    for t in range(count):
        peak = larger(peak, load(rows + row * t))
    size = largest(peak)
    least = size / GROWTH if size <= NUMBERS else NUMBERS
    for t in range(count):
        here = largest(larger(splat(0.0), load(rows + row * t)))
        if not here <= least:
            return t
    return 0


class Steps(NamedTuple):
    """An array (B, L, D): its address, 0 if it is absent, and its strides, in bytes, over rows and steps."""

    start: int
    row: int
    step: int


class Transform(NamedTuple):
    """How rows are transformed: see `_fft_plan`."""

    points: int
    top: int
    inner: int
    unit: int
    stride: int
    table: int
    levels: int
    depth: int


@inline
def place(array: Steps, b: int, t: int) -> int:
    """Where step t of row b stands in an array, or 0 for an absent one."""
    return array.start + array.row * b + array.step * t if array.start != 0 else 0


@kernel
def conv_jobs(
    counter: int, jobs: int, scratch: int, kind: float, mode: int, segments: int, count: int, longest: int,
    channels: int, width: int, staged: int,
    u: Steps, gate: Steps, v: Steps, v_gate: Steps, y: Steps, y_gate: Steps, z: Steps, z_gate: Steps,
    h: int, taps: int, dfilter: int, scale: int, parts: int, transform: Transform,
) -> None:  # fmt: skip
    """Jobs of one mode, each of `width` blocks of channels.

    Segments are int64 (count, 3): row of the batch, first step, steps, at most `longest`.

    SPECTRUM  u is the filter (taps, D) and h (blocks, N) its spectra; width is 1
    CONVOLVE  y = (u gate) * h, times y_gate; the same with z_gate to z
    ADJOINT   the same for the correlation of u gate with h; dfilter (parts, taps, D) are sums of the correlation of
              u gate with v v_gate over a part of the segments

    In CONVOLVE, a row that grows is done again for fewer and fewer steps, since outputs must not be rounded by the size
    of later inputs.

    Where there are gates, `staged`, rows pass through dense copies of a few blocks: a gated row is read from several
    places, each a page of its own, and to look up a page takes longer than to read sixteen floats of it. u, v, y and
    gates are stored as `kind` says, and staged if that is in half precision; z, the filter, h and dfilter are float32.
    """
    top, inner, unit, stride = transform.top, transform.inner, transform.unit, transform.stride
    table, levels, depth = transform.table, transform.levels, transform.depth
    size, blocks, gap = top * stride, (channels + LANES - 1) // LANES, staged * VECTOR * (longest + 3)
    x, inputs, stage = scratch, scratch + size, scratch + size
    if mode == ADJOINT:
        stage = scratch + 2 * size
    v_stage = stage + width * gap
    totals = v_stage + width * gap
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        if mode == SPECTRUM:
            x = h + job * size
            read_rows(x, top, inner, stride, table, u.start + FLOAT * channel(job, channels), u.step, taps)
            sweep(mode, x, 0, scale, 0, top, inner, unit, stride, levels, depth)
            continue
        if mode == CONVOLVE:
            begin, first, step = job // count * width, job % count, count
        else:
            begin, first, step = job // parts * width, job % parts, parts
        stop = min(begin + width, blocks)
        if mode == ADJOINT:
            clear_vectors(totals, 2 * (size // POINT) * (stop - begin))
        for segment in range(first, count, step):
            record = segments + 24 * segment
            b, t, n = get_int(record), get_int(record + 8), get_int(record + 16)
            u_here, y_here, v_here = place(u, b, t), place(y, b, t), place(v, b, t)
            while n > 0:
                again = 0
                if staged:
                    gate_here = place(gate, b, t)
                    stage_in(kind, stage, gap, u_here, u.step, gate_here, gate.step, begin, stop, channels, n)
                    if mode == ADJOINT:
                        gate_here = place(v_gate, b, t)
                        stage_in(kind, v_stage, gap, v_here, v.step, gate_here, v_gate.step, begin, stop, channels, n)
                for block in range(begin, stop):
                    d, total = FLOAT * channel(block, channels), totals + size * (block - begin)
                    source, source_t, other, other_t = u_here + d, u.step, v_here + d, v.step
                    target, target_t, at = y_here + d, y.step, gap * (block - begin)
                    if staged:
                        source, source_t, other, other_t, target, target_t = (
                            stage + at, VECTOR, v_stage + at, VECTOR, stage + at, VECTOR,
                        )  # fmt: skip
                    if mode == CONVOLVE:
                        again = max(again, before_growth(source, source_t, n))
                    read_rows(x, top, inner, stride, table, source, source_t, n)
                    if mode == ADJOINT:
                        read_rows(inputs, top, inner, stride, table, other, other_t, n)
                    sweep(mode, x, inputs, h + block * size, total, top, inner, unit, stride, levels, depth)
                    write_rows(x, top, inner, stride, table, target, target_t, n)
                if z.start != 0:
                    z_here, gate_here = place(z, b, t), place(z_gate, b, t)
                    stage_out(
                        kind, stage, gap, FLOAT32, z_here, z.step, gate_here, z_gate.step, begin, stop, channels, n
                    )
                if staged:
                    gate_here = place(y_gate, b, t)
                    stage_out(kind, stage, gap, kind, y_here, y.step, gate_here, y_gate.step, begin, stop, channels, n)
                n = again
        if mode == ADJOINT:
            row = FLOAT * channels
            for block in range(begin, stop):
                total = totals + size * (block - begin)
                to = dfilter + first * taps * row + FLOAT * channel(block, channels)
                sweep(INVERSE, total, 0, scale, 0, top, inner, unit, stride, levels, depth)
                write_rows(total, top, inner, stride, table, to, row, taps)
