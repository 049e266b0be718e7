"""Long convolution by Fourier transforms: a job is sixteen channels of a row, or of the filter.

The real row is weighted by a quarter turn over its length before it is transformed (the "right-angle" convolution).
What wraps around then comes back as the imaginary part, so that rows need no padding to twice their length.

Forward and inverse passes go depth first: a block is transformed, multiplied by the filter's spectrum and transformed
back while it is in the cache.

Source: Crandall and Pomerance, Prime Numbers: A Computational Perspective, section 9.5.3.
"""

from __future__ import annotations

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
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, take_job
from helix_plugin_cpu.kernels._simd import LANES

SPECTRUM, CONVOLVE, ADJOINT, INVERSE = range(4)

dif4, dif8 = dif.values()
dit4, dit8 = dit.values()
take8, take16 = take.values()
give8, give16 = give.values()


@inline
def offset(points: int) -> int:
    """Bytes from the start of a block to a point of it."""
    return POINT * (points + (points >> 6) + (points >> 12))


@part
def forward_pass(x: int, radix: int, columns: int, stride: int, table: int, factors: int) -> None:
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
def read_rows(
    x: int, top: int, columns: int, stride: int, table: int, rows: int, row: int, gate: int, gate_row: int, count: int,
) -> None:  # fmt: skip
    """Transform `count` rows, `row` bytes apart, times their gates; zeros behind them."""
    whole, rest = count // columns, count % columns
    for chunk in range(0, columns, CHUNK):
        at = x + offset(chunk)
        for j in range(chunk, min(chunk + CHUNK, columns)):
            w = table + 2 * FLOAT * top * j
            here, gate_here, valid = rows + row * j, 0, whole + (j < rest)
            if gate != 0:
                gate_here = gate + gate_row * j
            if top == 8:
                take8(at, stride, w, here, row * columns, gate_here, gate_row * columns, valid)
            else:
                take16(at, stride, w, here, row * columns, gate_here, gate_row * columns, valid)
            at += POINT


@part
def write_rows(
    x: int, top: int, columns: int, stride: int, table: int, count: int,
    first: int, first_row: int, first_gate: int, first_gate_row: int,
    second: int, second_row: int, second_gate: int, second_gate_row: int,
) -> None:  # fmt: skip
    """Transform back and write `count` rows, times their gates, to one or two places."""
    whole, rest = count // columns, count % columns
    a, ag, s, sg = columns * first_row, columns * first_gate_row, columns * second_row, columns * second_gate_row
    for chunk in range(0, columns, CHUNK):
        at = x + offset(chunk)
        for j in range(chunk, min(chunk + CHUNK, columns)):
            w = table + 2 * FLOAT * top * j
            valid = whole + (j < rest)
            f, fg = first + first_row * j, first_gate
            t, tg = second, second_gate
            if first_gate != 0:
                fg = first_gate + first_gate_row * j
            if second != 0:
                t = second + second_row * j
            if second_gate != 0:
                tg = second_gate + second_gate_row * j
            if top == 8:
                give8(at, stride, w, valid, f, a, fg, ag, t, s, tg, sg)
            else:
                give16(at, stride, w, valid, f, a, fg, ag, t, s, tg, sg)
            at += POINT


@part
def leaves(mode: int, x: int, v: int, h: int, total: int, unit: int) -> None:
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


@inline
def channel(group: int, channels: int) -> int:
    """Bytes to a group's first channel. The last group overlaps the one before rather than be narrower."""
    return FLOAT * min(LANES * group, channels - LANES)


@kernel
def conv_jobs(
    counter: int, jobs: int, scratch: int, mode: int, segments: int, count: int, channels: int,
    u: int, u_b: int, u_t: int, gate: int, gate_b: int, gate_t: int,
    v: int, v_b: int, v_t: int, v_gate: int, v_gate_b: int, v_gate_t: int,
    y: int, y_b: int, y_t: int, y_gate: int, y_gate_b: int, y_gate_t: int,
    z: int, z_b: int, z_t: int, z_gate: int, z_gate_b: int, z_gate_t: int,
    h: int, taps: int, dfilter: int, scale: int, parts: int,
    points: int, top: int, inner: int, unit: int, stride: int, table: int, levels: int, depth: int,
) -> None:  # fmt: skip
    """Jobs of one mode. Segments are int64 (count, 3): row of the batch, first step, steps.

    SPECTRUM  u is the filter (taps, D) and h (groups, N) its spectra
    CONVOLVE  y = (u gate) * h, times y_gate; the same with z_gate to z
    ADJOINT   the same for the correlation of u gate with h; dfilter (parts, taps, D) are sums of the correlation of
              u gate with v v_gate over a part of the segments
    """
    size = top * stride
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        if mode == SPECTRUM:
            x = h + job * size
            read_rows(x, top, inner, stride, table, u + channel(job, channels), u_t, 0, 0, taps)
            sweep(mode, x, 0, scale, 0, top, inner, unit, stride, levels, depth)
            continue
        if mode == CONVOLVE:
            group, first, step = job // count, job % count, count
        else:
            group, first, step = job // parts, job % parts, parts
        d = channel(group, channels)
        spectrum = h + group * size
        x, inputs, total = scratch, scratch + size, scratch + 2 * size
        if mode == ADJOINT:
            clear_vectors(total, 2 * (size // POINT))
        for segment in range(first, count, step):
            b, t = get_int(segments + 24 * segment), get_int(segments + 24 * segment + 8)
            n = get_int(segments + 24 * segment + 16)
            gate_here = 0
            if gate != 0:
                gate_here = gate + d + gate_b * b + gate_t * t
            read_rows(x, top, inner, stride, table, u + d + u_b * b + u_t * t, u_t, gate_here, gate_t, n)
            if mode == ADJOINT:
                v_gate_here = 0
                if v_gate != 0:
                    v_gate_here = v_gate + d + v_gate_b * b + v_gate_t * t
                v_here = v + d + v_b * b + v_t * t
                read_rows(inputs, top, inner, stride, table, v_here, v_t, v_gate_here, v_gate_t, n)
            sweep(mode, x, inputs, spectrum, total, top, inner, unit, stride, levels, depth)
            y_here, y_gate_here, z_here, z_gate_here = y + d + y_b * b + y_t * t, 0, 0, 0
            if y_gate != 0:
                y_gate_here = y_gate + d + y_gate_b * b + y_gate_t * t
            if z != 0:
                z_here = z + d + z_b * b + z_t * t
            if z_gate != 0:
                z_gate_here = z_gate + d + z_gate_b * b + z_gate_t * t
            write_rows(
                x, top, inner, stride, table, n, y_here, y_t, y_gate_here, y_gate_t,
                z_here, z_t, z_gate_here, z_gate_t,
            )  # fmt: skip
        if mode == ADJOINT:
            sweep(INVERSE, total, 0, scale, 0, top, inner, unit, stride, levels, depth)
            filter_row = FLOAT * channels
            to = dfilter + d + first * taps * filter_row
            write_rows(total, top, inner, stride, table, taps, to, filter_row, 0, 0, 0, 0, 0, 0)
