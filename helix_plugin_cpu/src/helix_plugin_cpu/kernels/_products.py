"""Products of a few rows with a stored matrix: what decoding spends its time on.

x (B, K) times the transpose of W (N, K), sixteen rows of W at a time. W is read once, in the order in which it lies;
four rows of x are multiplied with each part of it, and further ones while it is still in the cache. Formats:

float32    (N, K), rows may be apart
bfloat16   (N, K rounded up to 32): words of two columns, sixteen apart
int8       for every sixteen rows and 64 columns: sixteen vectors of four columns of each row, bytes w + 128, and one of
           two bfloat16 scales of each row. Activations are rounded to eight bits in groups of 32, as llama.cpp does.
"""

from __future__ import annotations

from typing import Any

from helix_plugin_cpu.kernels._integers import (
    GROUP,
    broadcast_integer,
    dot_quad,
    high_bfloat16,
    integers_at,
    low_bfloat16,
    quantize_group,
    to_floats,
)
from helix_plugin_cpu.kernels._jit import inline
from helix_plugin_cpu.kernels._memory import FLOAT, get, put
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    Vec,
    fma,
    load,
    load_first,
    splat,
    store,
    store_first,
    sum_lanes,
)

FLOAT32, BFLOAT16, INT8 = 0, 1, 2
WIDTH = 4
Four = Any  # four vectors
Totals = Any  # four times four
"""Rows of x that are multiplied with a part of W at a time."""

BLOCK = 2 * GROUP
BLOCK_BYTES = (BLOCK // 4 + 1) * VECTOR


@inline
def _float_row(x: int, K: int, w: int) -> Vec:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    k = 0
    while k + 4 * LANES <= K:
        at = FLOAT * k
        a = fma(load(w + at), load(x + at), a)
        b = fma(load(w + at + VECTOR), load(x + at + VECTOR), b)
        c = fma(load(w + at + 2 * VECTOR), load(x + at + 2 * VECTOR), c)
        d = fma(load(w + at + 3 * VECTOR), load(x + at + 3 * VECTOR), d)
        k += 4 * LANES
    while k < K:
        a = fma(load_first(w + FLOAT * k, K - k), load_first(x + FLOAT * k, K - k), a)
        k += LANES
    return (a + b) + (c + d)


@inline
def _half_row(x: int, K: int, w: int) -> Vec:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    k = 0
    while k + 4 * LANES <= K:
        at = x + FLOAT * k
        first, second = integers_at(w + 2 * k), integers_at(w + 2 * k + VECTOR)
        a = fma(low_bfloat16(first), load(at), a)
        b = fma(high_bfloat16(first), load(at + VECTOR), b)
        c = fma(low_bfloat16(second), load(at + 2 * VECTOR), c)
        d = fma(high_bfloat16(second), load(at + 3 * VECTOR), d)
        k += 4 * LANES
    while k < K:
        at = x + FLOAT * k
        words = integers_at(w + 2 * k)
        a = fma(low_bfloat16(words), load_first(at, K - k), a)
        if K - k > LANES:
            b = fma(high_bfloat16(words), load_first(at + VECTOR, K - k - LANES), b)
        k += 2 * LANES
    return (a + b) + (c + d)


@inline
def _rows_once(kind: int, x: int, K: int, w: int, row: int, rows: int, scratch: int) -> Vec:
    """One row of x with up to sixteen of W, `row` bytes apart."""
    for r in range(rows):
        at = w + row * r
        if kind == FLOAT32:
            store(scratch + VECTOR * r, _float_row(x, K, at))
        else:
            store(scratch + VECTOR * r, _half_row(x, K, at))
    return sum_lanes(scratch)


@inline
def _add_products(w: Four, x: Four, totals: Totals) -> Totals:
    """Sixteen columns of four rows of W times those of four rows of x."""
    (w0, w1, w2, w3), (x0, x1, x2, x3), (a, b, c, d) = w, x, totals
    return (
        (fma(w0, x0, a[0]), fma(w0, x1, a[1]), fma(w0, x2, a[2]), fma(w0, x3, a[3])),
        (fma(w1, x0, b[0]), fma(w1, x1, b[1]), fma(w1, x2, b[2]), fma(w1, x3, b[3])),
        (fma(w2, x0, c[0]), fma(w2, x1, c[1]), fma(w2, x2, c[2]), fma(w2, x3, c[3])),
        (fma(w3, x0, d[0]), fma(w3, x1, d[1]), fma(w3, x2, d[2]), fma(w3, x3, d[3])),
    )


@inline
def _load_four(a: int, b: int, c: int, d: int, at: int) -> Four:
    return load(a + at), load(b + at), load(c + at), load(d + at)


@inline
def _load_first_four(a: int, b: int, c: int, d: int, at: int, count: int) -> Four:
    return load_first(a + at, count), load_first(b + at, count), load_first(c + at, count), load_first(d + at, count)


@inline
def _rows_four(
    kind: int, x0: int, x1: int, x2: int, x3: int, K: int, w: int, row: int, rows: int, scratch: int
) -> None:
    """Four rows of x with up to sixteen of W: sixteen vectors to be summed for each, one after the other."""
    for r in range(0, rows, 4):
        w0, w1, w2, w3 = (
            w + row * min(r, rows - 1), w + row * min(r + 1, rows - 1),
            w + row * min(r + 2, rows - 1), w + row * min(r + 3, rows - 1),
        )  # fmt: skip
        none = (splat(0.0), splat(0.0), splat(0.0), splat(0.0))
        totals = (none, none, none, none)
        k = 0
        if kind == FLOAT32:
            while k + LANES <= K:
                at = FLOAT * k
                totals = _add_products(_load_four(w0, w1, w2, w3, at), _load_four(x0, x1, x2, x3, at), totals)
                k += LANES
            if k < K:
                at, left = FLOAT * k, K - k
                part = _load_first_four(w0, w1, w2, w3, at, left)
                totals = _add_products(part, _load_first_four(x0, x1, x2, x3, at, left), totals)
        else:
            while k < K:
                i0, i1 = integers_at(w0 + 2 * k), integers_at(w1 + 2 * k)
                i2, i3 = integers_at(w2 + 2 * k), integers_at(w3 + 2 * k)
                low = (low_bfloat16(i0), low_bfloat16(i1), low_bfloat16(i2), low_bfloat16(i3))
                high = (high_bfloat16(i0), high_bfloat16(i1), high_bfloat16(i2), high_bfloat16(i3))
                at, left = FLOAT * k, K - k
                totals = _add_products(low, _load_first_four(x0, x1, x2, x3, at, left), totals)
                if left > LANES:
                    at, left = at + VECTOR, left - LANES
                    totals = _add_products(high, _load_first_four(x0, x1, x2, x3, at, left), totals)
                k += 2 * LANES
        at = scratch + VECTOR * r
        for part in totals:
            for j in range(4):
                store(at + VECTOR * LANES * j, part[j])
            at += VECTOR


@inline
def quantized_bytes(K: int) -> int:
    """Bytes of a quantised row of x: 16-bit numbers, then a scale and a correction for every group."""
    return -(-K // BLOCK) * (2 * BLOCK + 16)


@inline
def quantize_row(x: int, K: int, target: int) -> None:
    """Write a row x of K floats as 16-bit numbers, with a scale and a correction for every group."""
    blocks = -(-K // BLOCK)
    scales = target + 2 * BLOCK * blocks
    for g in range(2 * blocks):
        scale = quantize_group(
            x + FLOAT * GROUP * g, K - GROUP * g, target + 2 * GROUP * g, scales + 8 * blocks + 4 * g
        )
        put(scales + 4 * g, scale)


@inline
def _byte_rows(q: int, blocks: int, w: int) -> Vec:
    """A quantised row of x with sixteen rows of W."""
    total = splat(0.0)
    scales = q + 2 * BLOCK * blocks
    corrections = scales + 8 * blocks
    for block in range(blocks):
        at, quads = w + BLOCK_BYTES * block, q + 2 * BLOCK * block
        # In the order of memory, which the processor's own prefetching follows.
        first, second = broadcast_integer(corrections + 8 * block), broadcast_integer(corrections + 8 * block + 4)
        for j in range(8):
            first = dot_quad(first, integers_at(at + VECTOR * j), quads + 8 * j)
        for j in range(8, 16):
            second = dot_quad(second, integers_at(at + VECTOR * j), quads + 8 * j)
        factors = integers_at(at + VECTOR * 16)
        total = fma(to_floats(first), low_bfloat16(factors) * splat(get(scales + 8 * block)), total)
        total = fma(to_floats(second), high_bfloat16(factors) * splat(get(scales + 8 * block + 4)), total)
    return total


@inline
def _byte_rows_four(q0: int, q1: int, q2: int, q3: int, blocks: int, w: int, target: int) -> None:
    t0, t1, t2, t3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    scales = 2 * BLOCK * blocks
    corrections = scales + 8 * blocks
    for g in range(2 * blocks):
        at, quads = w + BLOCK_BYTES * (g // 2), 2 * GROUP * g
        c = corrections + 4 * g
        s0, s1, s2, s3 = (
            broadcast_integer(q0 + c), broadcast_integer(q1 + c), broadcast_integer(q2 + c), broadcast_integer(q3 + c)
        )  # fmt: skip
        for j in range(8):
            words, x = integers_at(at + VECTOR * (8 * (g % 2) + j)), quads + 8 * j
            s0, s1 = dot_quad(s0, words, q0 + x), dot_quad(s1, words, q1 + x)
            s2, s3 = dot_quad(s2, words, q2 + x), dot_quad(s3, words, q3 + x)
        factors = integers_at(at + VECTOR * 16)
        factor = low_bfloat16(factors) if g % 2 == 0 else high_bfloat16(factors)
        c = scales + 4 * g
        t0 = fma(to_floats(s0), factor * splat(get(q0 + c)), t0)
        t1 = fma(to_floats(s1), factor * splat(get(q1 + c)), t1)
        t2 = fma(to_floats(s2), factor * splat(get(q2 + c)), t2)
        t3 = fma(to_floats(s3), factor * splat(get(q3 + c)), t3)
    store(target, t0)
    store(target + VECTOR, t1)
    store(target + 2 * VECTOR, t2)
    store(target + 3 * VECTOR, t3)


@inline
def _finish(y: Vec, bias: int, target: int, count: int) -> None:
    if bias != 0:
        y = y + load_first(bias, count)
    store_first(target, y, count)


@inline
def multiply(
    kind: int, x: int, x_row: int, batch: int, K: int, w: int, w_row: int, bias: int, y: int, y_row: int,
    lo: int, hi: int, q: int, scratch: int,
) -> None:  # fmt: skip
    """Columns lo..hi-1 of y (B, N); lo is a multiple of 16. Rows are in bytes; q holds the quantised rows of x."""
    q_row = quantized_bytes(K)
    blocks = -(-K // BLOCK)
    for n in range(lo, hi, LANES):
        count = min(LANES, hi - n)
        place = bias + FLOAT * n if bias != 0 else 0
        tile = w + n // LANES * blocks * BLOCK_BYTES if kind == INT8 else w + n * w_row
        if batch == 1:
            if kind == INT8:
                _finish(_byte_rows(q, blocks, tile), place, y + FLOAT * n, count)
            else:
                _finish(_rows_once(kind, x, K, tile, w_row, count, scratch), place, y + FLOAT * n, count)
        else:
            last = batch - 1
            for i in range(0, batch, WIDTH):
                j1, j2, j3 = min(i + 1, last), min(i + 2, last), min(i + 3, last)
                if kind == INT8:
                    _byte_rows_four(
                        q + i * q_row, q + j1 * q_row, q + j2 * q_row, q + j3 * q_row, blocks, tile, scratch
                    )
                else:
                    _rows_four(
                        kind, x + i * x_row, x + j1 * x_row, x + j2 * x_row, x + j3 * x_row, K,
                        tile, w_row, count, scratch,
                    )  # fmt: skip
                for j in range(min(WIDTH, batch - i)):
                    rows = scratch + VECTOR * j * (1 if kind == INT8 else LANES)
                    _finish(
                        load(rows) if kind == INT8 else sum_lanes(rows), place, y + (i + j) * y_row + FLOAT * n, count
                    )
