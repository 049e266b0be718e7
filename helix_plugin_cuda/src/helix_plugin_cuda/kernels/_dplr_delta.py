"""A state that decays and that a rank-one map moves, in tiles of time: the kernels under `rwkv7`.

    u_t = S_{t-1}ᵀ a_t,  S_t = diag(exp(g_t)) S_{t-1} + b_t u_tᵀ + k_t v_tᵀ,  y_t = S_tᵀ r_t

The u of a tile solve a system with (I - A), A strictly lower triangular. Pairs of steps make four such matrices, [a, r]
by [k, b], each sum weighted by the decay between the steps: a product of single decays, never a quotient, so any decay
is exact. They do not depend on the state, so all tiles make theirs side by side; one pass over tiles then carries the
state, columns of v side by side. g is effective already, as in `_linear_attention`.

L positions, H heads, K and V widths of a head's keys and values, T steps of a tile.

Source: Yang, Wang, Zhang, Shen and Kim, Parallelizing Linear Transformers with the Delta Rule over Sequence Length,
2024; Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025.
"""

from __future__ import annotations

import triton
import triton.language as tl

from helix_plugin_cuda.kernels._chunks import limit
from helix_plugin_cuda.kernels._launch import wide
from helix_plugin_cuda.kernels._linear_attention import _gates, _row, _rows, _since, _to_end


@triton.jit
def _movers(a, reset, sb, st, sh, b, t, h, c, K, L, end):
    """a of steps t; 0 where a document starts, whose map finds no state."""
    rows = _rows(a, sb, st, sh, b, t, h, c, K, end)
    if reset is not None:
        new = tl.load(reset + b * L + t, mask=t < end, other=0) != 0
        rows = tl.where(new[:, None], 0.0, rows)
    return rows


@triton.jit
def _until(g, b, t, start, h, c, L, H, K):
    """The decay from the state in front of the tile to that in front of each step."""
    gates = _gates(g, b, tl.maximum(t - 1, start), h, c, L, H, K, L, True)
    return tl.exp(tl.cumsum(tl.where((t > start)[:, None], gates, 0.0), axis=0))


@triton.jit
def _column(matrix, one):
    return tl.sum(tl.where(one, matrix, 0.0), axis=1)[:, None]


@triton.jit
def matrices_kernel(
    r, k, a, b, g, reset, lengths, matrices, L, H, K, tiles, rb, rt, rh, kb, kt, kh, ab, at, ah, bb, bt, bh,
    T: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Of each tile: (I - A)⁻¹ with A = [a by b], then [a by k], [r by k] and [r by b], all (T, T)."""
    program = wide(tl.program_id(0))
    start = program % tiles * T
    row, h = program // tiles // H, program // tiles % H
    end = limit(lengths, row, L)
    c, i = tl.arange(0, KEYS), tl.arange(0, T)
    t = start + i
    asked = _rows(r, rb, rt, rh, row, t, h, c, K, end)
    mover = _movers(a, reset, ab, at, ah, row, t, h, c, K, L, end)
    a_b, a_k = tl.zeros([T, T], tl.float32), tl.zeros([T, T], tl.float32)
    r_k, r_b = tl.zeros([T, T], tl.float32), tl.zeros([T, T], tl.float32)
    after, until = tl.zeros([T, KEYS], tl.float32), tl.zeros([T, KEYS], tl.float32)
    for turn in range(T):
        s = T - 1 - turn
        step, one = start + s, (i == s)[None, :]
        key = _row(k, kb, kt, kh, row, step, h, c, K, end)[None, :]
        adder = _row(b, bb, bt, bh, row, step, h, c, K, end)[None, :]
        # Decays from behind step s to behind a step, and to in front of a later one.
        after = tl.where((i == s)[:, None], 1.0, after)
        until = tl.where((i == s + 1)[:, None], 1.0, until)
        seen, moved = asked * after, mover * until
        a_b = tl.where(one, tl.sum(moved * adder, axis=1)[:, None], a_b)
        a_k = tl.where(one, tl.sum(moved * key, axis=1)[:, None], a_k)
        r_k = tl.where(one, tl.sum(seen * key, axis=1)[:, None], r_k)
        r_b = tl.where(one, tl.sum(seen * adder, axis=1)[:, None], r_b)
        gate = tl.load(g + ((row * L + step) * H + h) * K + c, mask=c < tl.where(step < L, K, 0), other=0.0)
        after, until = after * tl.exp(gate)[None, :], until * tl.exp(gate)[None, :]
    for n in range(1, T):
        found = tl.sum(tl.where((i == n)[:, None], a_b, 0.0), axis=0)
        found += tl.sum(found[:, None] * a_b, axis=0)
        a_b = tl.where((i == n)[:, None], found[None, :], a_b)
    a_b += tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    place = matrices + program * 4 * T * T + i[:, None] * T + i[None, :]
    tl.store(place, a_b)
    tl.store(place + T * T, a_k)
    tl.store(place + 2 * T * T, r_k)
    tl.store(place + 3 * T * T, r_b)


@triton.jit
def forward_kernel(
    r, k, v, a, b, g, reset, lengths, matrices, initial, y, last, kept, L, H, K, V, tiles,
    rb, rt, rh, kb, kt, kh, vb, vt, vh, ab, at, ah, bb, bt, bh,
    PRECISION: tl.constexpr, T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """y, and the state in front of each tile, for all keys and some values."""
    pieces = tl.cdiv(V, VALUES)
    program = wide(tl.program_id(0))
    head = program // pieces
    row, h = head // H, head % H
    end = limit(lengths, row, L)
    c, i = tl.arange(0, KEYS), tl.arange(0, T)
    w = (program % pieces) * VALUES + tl.arange(0, VALUES)
    inside = (c < K)[:, None] & (w < V)[None, :]
    held = c[:, None] * V + w[None, :]
    state = tl.zeros([KEYS, VALUES], tl.float32)
    if initial is not None:
        state = tl.load(initial + head * K * V + held, mask=inside, other=0.0).to(tl.float32)
    for tile in range(tiles):
        number, start = head * tiles + tile, wide(tile) * T
        if kept is not None:
            tl.store(kept + number * K * V + held, state, mask=inside)
        t = start + i
        asked = _rows(r, rb, rt, rh, row, t, h, c, K, end)
        keys = _rows(k, kb, kt, kh, row, t, h, c, K, end)
        x = _rows(v, vb, vt, vh, row, t, h, w, V, end)
        mover = _movers(a, reset, ab, at, ah, row, t, h, c, K, L, end)
        adder = _rows(b, bb, bt, bh, row, t, h, c, K, end)
        place = matrices + number * 4 * T * T + i[:, None] * T + i[None, :]
        inverse, a_k = tl.load(place), tl.load(place + T * T)
        r_k, r_b = tl.load(place + 2 * T * T), tl.load(place + 3 * T * T)
        read = tl.dot(mover * _until(g, row, t, start, h, c, L, H, K), state, input_precision=PRECISION)
        read += tl.dot(a_k, x, input_precision=PRECISION)
        u = tl.dot(inverse, read, input_precision=PRECISION)
        out = tl.dot(asked * _since(g, row, t, h, c, L, H, K, L, True), state, input_precision=PRECISION)
        out += tl.dot(r_k, x, input_precision=PRECISION) + tl.dot(r_b, u, input_precision=PRECISION)
        put = ((row * L + t) * H + h)[:, None] * V + w[None, :]
        tl.store(y + put, tl.where((t < end)[:, None], out, 0.0), mask=(t < L)[:, None] & (w < V)[None, :])
        total = tl.exp(tl.sum(_gates(g, row, t, h, c, L, H, K, L, True), axis=0))
        to_end = _to_end(g, row, t, h, c, L, H, K, L, start + T, True)
        state = total[:, None] * state + tl.dot(tl.trans(keys * to_end), x, input_precision=PRECISION)
        state += tl.dot(tl.trans(adder * to_end), u, input_precision=PRECISION)
    tl.store(last + head * K * V + held, state, mask=inside)


@triton.jit
def backward_kernel(
    r, k, v, a, b, g, reset, lengths, matrices, kept, dy, dlast, dv, parts, rests, slopes, dinitial,
    L, H, K, V, tiles, heads, rb, rt, rh, kb, kt, kh, vb, vt, vh, ab, at, ah, bb, bt, bh,
    PRECISION: tl.constexpr, T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Backward over tiles: the gradient of v, and what this program's columns of v add to the others.

    The others are the gradients of the four matrices, and what passes between r, k, a, b and the states at the tile's
    two ends. `heads` is B H.
    """
    pieces = tl.cdiv(V, VALUES)
    program = wide(tl.program_id(0))
    piece, head = program % pieces, program // pieces
    row, h = head // H, head % H
    end = limit(lengths, row, L)
    c, i = tl.arange(0, KEYS), tl.arange(0, T)
    w = piece * VALUES + tl.arange(0, VALUES)
    inside = (c < K)[:, None] & (w < V)[None, :]
    held = c[:, None] * V + w[None, :]
    ds = tl.zeros([KEYS, VALUES], tl.float32)
    if dlast is not None:
        ds = tl.load(dlast + head * K * V + held, mask=inside, other=0.0).to(tl.float32)
    for turn in range(tiles):
        tile = wide(tiles - 1 - turn)
        number, start = head * tiles + tile, tile * T
        t = start + i
        state = tl.load(kept + number * K * V + held, mask=inside, other=0.0)
        asked = _rows(r, rb, rt, rh, row, t, h, c, K, end)
        keys = _rows(k, kb, kt, kh, row, t, h, c, K, end)
        x = _rows(v, vb, vt, vh, row, t, h, w, V, end)
        mover = _movers(a, reset, ab, at, ah, row, t, h, c, K, L, end)
        adder = _rows(b, bb, bt, bh, row, t, h, c, K, end)
        slope = _rows(dy, wide(L) * H * V, H * V, V, row, t, h, w, V, end)
        place = matrices + number * 4 * T * T + i[:, None] * T + i[None, :]
        inverse, a_k = tl.load(place), tl.load(place + T * T)
        r_k, r_b = tl.load(place + 2 * T * T), tl.load(place + 3 * T * T)
        until = _until(g, row, t, start, h, c, L, H, K)
        since = _since(g, row, t, h, c, L, H, K, L, True)
        to_end = _to_end(g, row, t, h, c, L, H, K, L, start + T, True)
        total = tl.exp(tl.sum(_gates(g, row, t, h, c, L, H, K, L, True), axis=0))[:, None]
        read = tl.dot(mover * until, state, input_precision=PRECISION) + tl.dot(a_k, x, input_precision=PRECISION)
        u = tl.dot(inverse, read, input_precision=PRECISION)
        du = tl.dot(tl.trans(r_b), slope, input_precision=PRECISION)
        du += tl.dot(adder * to_end, ds, input_precision=PRECISION)
        dread = tl.dot(tl.trans(inverse), du, input_precision=PRECISION)
        dx = tl.dot(tl.trans(r_k), slope, input_precision=PRECISION)
        dx += tl.dot(tl.trans(a_k), dread, input_precision=PRECISION)
        dx += tl.dot(keys * to_end, ds, input_precision=PRECISION)
        valid = (t < L)[:, None]
        put = ((row * L + t) * H + h)[:, None] * V + w[None, :]
        tl.store(dv + put, tl.where((t < end)[:, None], dx, 0.0), mask=valid & (w < V)[None, :])
        square = slopes + ((piece * heads + head) * tiles + tile) * 4 * T * T + i[:, None] * T + i[None, :]
        tl.store(square, tl.dot(dread, tl.trans(u), input_precision=PRECISION))
        tl.store(square + T * T, tl.dot(dread, tl.trans(x), input_precision=PRECISION))
        tl.store(square + 2 * T * T, tl.dot(slope, tl.trans(x), input_precision=PRECISION))
        tl.store(square + 3 * T * T, tl.dot(slope, tl.trans(u), input_precision=PRECISION))
        dr = since * tl.dot(slope, tl.trans(state), input_precision=PRECISION)
        dk = to_end * tl.dot(x, tl.trans(ds), input_precision=PRECISION)
        da = until * tl.dot(dread, tl.trans(state), input_precision=PRECISION)
        db = to_end * tl.dot(u, tl.trans(ds), input_precision=PRECISION)
        part = parts + (((piece * heads + head) * L + t) * 4)[:, None] * K + c[None, :]
        mask = valid & (c < K)[None, :]
        tl.store(part, dr, mask=mask)
        tl.store(part + K, dk, mask=mask)
        tl.store(part + 2 * K, da, mask=mask)
        tl.store(part + 3 * K, db, mask=mask)
        # The gradient of the sum of g over the tile, from what is left at its end.
        rest = tl.sum(keys * dk + adder * db, axis=0) + tl.sum(ds * total * state, axis=1)
        tl.store(rests + ((piece * heads + head) * tiles + tile) * K + c, rest, mask=c < K)
        ds = total * ds + tl.dot(tl.trans(asked * since), slope, input_precision=PRECISION)
        ds += tl.dot(tl.trans(mover * until), dread, input_precision=PRECISION)
    if dinitial is not None:
        tl.store(dinitial + head * K * V + held, ds, mask=inside)


@triton.jit
def pairs_kernel(
    r, k, a, b, g, reset, lengths, parts, rests, slopes, dr, dk, da, db, dg, L, H, K, tiles, heads, pieces,
    rb, rt, rh, kb, kt, kh, ab, at, ah, bb, bt, bh, T: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """The gradients of r, k, a, b and g: what pairs of a tile's steps add to what `backward_kernel` found."""
    program = wide(tl.program_id(0))
    start = program % tiles * T
    head = program // tiles
    row, h = head // H, head % H
    end = limit(lengths, row, L)
    c, i = tl.arange(0, KEYS), tl.arange(0, T)
    t = start + i
    asked = _rows(r, rb, rt, rh, row, t, h, c, K, end)
    keys = _rows(k, kb, kt, kh, row, t, h, c, K, end)
    mover = _movers(a, reset, ab, at, ah, row, t, h, c, K, L, end)
    adder = _rows(b, bb, bt, bh, row, t, h, c, K, end)
    d_ab, d_ak = tl.zeros([T, T], tl.float32), tl.zeros([T, T], tl.float32)
    d_rk, d_rb = tl.zeros([T, T], tl.float32), tl.zeros([T, T], tl.float32)
    found_r, found_k = tl.zeros([T, KEYS], tl.float32), tl.zeros([T, KEYS], tl.float32)
    found_a, found_b = tl.zeros([T, KEYS], tl.float32), tl.zeros([T, KEYS], tl.float32)
    rest = tl.zeros([KEYS], tl.float32)
    mask = (t < L)[:, None] & (c < K)[None, :]
    for piece in range(pieces):
        number = wide(piece) * heads + head
        square = slopes + (number * tiles + program % tiles) * 4 * T * T + i[:, None] * T + i[None, :]
        d_ab += tl.load(square)
        d_ak += tl.load(square + T * T)
        d_rk += tl.load(square + 2 * T * T)
        d_rb += tl.load(square + 3 * T * T)
        part = parts + ((number * L + t) * 4)[:, None] * K + c[None, :]
        found_r += tl.load(part, mask=mask, other=0.0)
        found_k += tl.load(part + K, mask=mask, other=0.0)
        found_a += tl.load(part + 2 * K, mask=mask, other=0.0)
        found_b += tl.load(part + 3 * K, mask=mask, other=0.0)
        rest += tl.load(rests + (number * tiles + program % tiles) * K + c, mask=c < K, other=0.0)
    after, until = tl.zeros([T, KEYS], tl.float32), tl.zeros([T, KEYS], tl.float32)
    for turn in range(T):
        s = T - 1 - turn
        step, one, here = start + s, (i == s)[None, :], (i == s)[:, None]
        key = _row(k, kb, kt, kh, row, step, h, c, K, end)[None, :]
        add = _row(b, bb, bt, bh, row, step, h, c, K, end)[None, :]
        after = tl.where(here, 1.0, after)
        until = tl.where((i == s + 1)[:, None], 1.0, until)
        c_ab, c_ak, c_rk, c_rb = _column(d_ab, one), _column(d_ak, one), _column(d_rk, one), _column(d_rb, one)
        found_r += after * (c_rk * key + c_rb * add)
        found_a += until * (c_ak * key + c_ab * add)
        seen, moved = asked * after, mover * until
        found_k += tl.where(here, tl.sum(c_rk * seen + c_ak * moved, axis=0)[None, :], 0.0)
        found_b += tl.where(here, tl.sum(c_rb * seen + c_ab * moved, axis=0)[None, :], 0.0)
        gate = tl.load(g + ((row * L + step) * H + h) * K + c, mask=c < tl.where(step < L, K, 0), other=0.0)
        after, until = after * tl.exp(gate)[None, :], until * tl.exp(gate)[None, :]
    # With G the running sum of g over the tile: r comes with G_t, a with G_{t-1}, k and b with -G_t.
    terms = asked * found_r - keys * found_k - adder * found_b
    moves = mover * found_a
    sums = tl.cumsum(terms + moves, axis=0, reverse=True) - moves + rest[None, :]
    put = ((row * L + t) * H + h)[:, None] * K + c[None, :]
    tl.store(dg + put, sums, mask=mask)
    tl.store(dr + put, found_r, mask=mask)
    tl.store(dk + put, found_k, mask=mask)
    tl.store(db + put, found_b, mask=mask)
    if reset is not None:
        new = tl.load(reset + row * L + t, mask=t < end, other=0) != 0
        found_a = tl.where(new[:, None], 0.0, found_a)
    tl.store(da + put, found_a, mask=mask)
