"""Linear attention with a decaying state, in tiles of time: the kernels under `gated_linear_attention` and `ssd`.

    S_t = diag(exp(g_t)) S_{t-1} + k_t v_tᵀ,  y_t = S_tᵀ q_t

Decays between two steps of a tile are exp of the sum of g between them, or products of single decays: never a
difference of two large sums, so any decay is exact. g is effective already (`effective`): FORGOTTEN where a document
starts, 0 in padding, and one number a head (PER_KEY false) or one a key.

B sequences, L positions, H heads, K and V widths of a head's keys and values, T steps of a tile.

Sources: Yang, Wang, Shen, Panda and Kim, Gated Linear Attention Transformers with Hardware-Efficient Training, 2023;
Dao and Gu, Transformers are SSMs, 2024.
"""

from __future__ import annotations

import triton
import triton.language as tl

from helix_plugin_cuda.kernels._chunks import limit
from helix_plugin_cuda.kernels._launch import wide


@triton.jit
def _place(L, H, pieces, chunks, steps):
    """Row, head, chunk, piece, first step and end of this program's work."""
    program = wide(tl.program_id(0))
    chunk = program // pieces % chunks
    row = program // (pieces * chunks)
    first = chunk * steps
    return row // H, row % H, chunk, program % pieces, first, tl.minimum(first + steps, L)


@triton.jit
def _rows(x, sb, st, sh, b, t, h, c, width, end):
    """Steps t of head h: (T, C) in float32, 0 in padding."""
    mask = (t < end)[:, None] & (c < width)[None, :]
    return tl.load(x + b * sb + t[:, None] * st + h * sh + c[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _row(x, sb, st, sh, b, t, h, c, width, end):
    """Step t of head h: (C,) in float32, 0 in padding."""
    mask = c < tl.where(t < end, width, 0)
    return tl.load(x + b * sb + t * st + h * sh + c, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _scaled(x, factor, H, sb, st, sh, b, t, h, c, width, L, end):
    """`_rows`, each step times its factor (B, L, H)."""
    v = _rows(x, sb, st, sh, b, t, h, c, width, end)
    if factor is not None:
        v *= tl.load(factor + (b * L + t) * H + h, mask=t < end, other=0.0)[:, None]
    return v


@triton.jit
def _gates(g, b, t, h, c, L, H, K, stop, PER_KEY: tl.constexpr):
    """g of steps t: (T, C) or (T, 1)."""
    if PER_KEY:
        at = ((b * L + t) * H + h)[:, None] * K + c[None, :]
        gates = tl.load(g + at, mask=(t < stop)[:, None] & (c < K)[None, :], other=0.0)
    else:
        gates = tl.load(g + (b * L + t) * H + h, mask=t < stop, other=0.0)[:, None]
    return gates


@triton.jit
def _since(g, b, t, h, c, L, H, K, stop, PER_KEY: tl.constexpr):
    """The decay from the state in front of the tile to each step."""
    return tl.exp(tl.cumsum(_gates(g, b, t, h, c, L, H, K, stop, PER_KEY), axis=0))


@triton.jit
def _to_end(g, b, t, h, c, L, H, K, stop, tile_stop, PER_KEY: tl.constexpr):
    """The decay from behind each step to the tile's end."""
    following = _gates(g, b, t + 1, h, c, L, H, K, tl.minimum(stop, tile_stop), PER_KEY)
    return tl.exp(tl.cumsum(following, axis=0, reverse=True))


@triton.jit
def _gap(g, b, t, h, L, H, stop, T: tl.constexpr):
    """(T, T): the decay from behind step s to step t, 0 where t comes before s; one gate a head."""
    i = tl.arange(0, T)
    gate = tl.load(g + (b * L + t) * H + h, mask=t < stop, other=0.0)
    sums = tl.cumsum(tl.where(i[:, None] > i[None, :], gate[:, None], 0.0), axis=0)
    return tl.where(i[:, None] >= i[None, :], tl.exp(sums), 0.0)


@triton.jit
def _scores(
    q, k_tile, k, g, kb, kt, kh, hk, b, start, stop, end, h, c, L, H, K,
    PER_KEY: tl.constexpr, PRECISION: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """(T, T): q_t · (decay from s to t) k_s. A decay for each key is a product over the steps between, s descending."""
    i = tl.arange(0, T)
    if PER_KEY:
        scores = tl.zeros([T, T], tl.float32)
        decay = tl.zeros_like(q)
        for turn in range(T):
            s = T - 1 - turn
            step = start + s
            decay = tl.where((i == s)[:, None], 1.0, decay)
            row = tl.load(k + b * kb + step * kt + hk * kh + c, mask=c < tl.where(step < end, K, 0), other=0.0)
            column = tl.sum(q * decay * row.to(tl.float32)[None, :], axis=1)
            scores = tl.where((i == s)[None, :], column[:, None], scores)
            gate = tl.load(g + ((b * L + step) * H + h) * K + c, mask=c < tl.where(step < stop, K, 0), other=0.0)
            decay = decay * tl.exp(gate)[None, :]
    else:
        scores = tl.dot(q, tl.trans(k_tile), input_precision=PRECISION)
        scores = scores * _gap(g, b, start + i, h, L, H, stop, T)
    return scores


@triton.jit
def states_kernel(
    left, right, factor, g, lengths, ends, decays, L, H, K, V, chunks, steps, pieces_v, scale,
    lb, lt, lh, rb, rt, rh,
    LEFT_SHARED: tl.constexpr, ADJOINT: tl.constexpr, PER_KEY: tl.constexpr, PRECISION: tl.constexpr,
    T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """A chunk from nothing: its end state from k, v; or backwards (ADJOINT) the gradient in front of it from q, dy."""
    pieces = tl.cdiv(K, KEYS) * pieces_v
    b, h, chunk, piece, first, stop = _place(L, H, pieces, chunks, steps)
    end = limit(lengths, b, L)
    c = (piece // pieces_v) * KEYS + tl.arange(0, KEYS)
    v = (piece % pieces_v) * VALUES + tl.arange(0, VALUES)
    i = tl.arange(0, T)
    state = tl.zeros([KEYS, VALUES], tl.float32)
    sums = tl.zeros([KEYS], tl.float32)
    count = tl.cdiv(stop - first, T)
    for k in range(count):
        start = first + ((count - 1 - k) if ADJOINT else k) * T
        t = start + i
        gates = _gates(g, b, t, h, c, L, H, K, stop, PER_KEY)
        total = tl.sum(gates, axis=0)
        a = _rows(left, lb, lt, lh, b, t, h // LEFT_SHARED, c, K, tl.minimum(end, stop))
        x = _scaled(right, factor, H, rb, rt, rh, b, t, h, v, V, L, tl.minimum(end, stop))
        if ADJOINT:
            a = a * scale * _since(g, b, t, h, c, L, H, K, stop, PER_KEY)
        else:
            a = a * _to_end(g, b, t, h, c, L, H, K, stop, start + T, PER_KEY)
        state = tl.exp(total)[:, None] * state + tl.dot(tl.trans(a), x, input_precision=PRECISION)
        sums += total
    row = (b * H + h) * chunks + chunk
    inside = (c < K)[:, None] & (v < V)[None, :]
    tl.store(ends + row * K * V + c[:, None] * V + v[None, :], state, mask=inside)
    if piece % pieces_v == 0:
        if PER_KEY:
            tl.store(decays + row * K + c, tl.exp(sums), mask=c < K)
        else:
            tl.store(decays + row + 0 * c, tl.exp(sums), mask=c == 0)


@triton.jit
def outputs_kernel(
    q, k, v, factor, g, lengths, enter, skip, y, last, L, H, K, V, chunks, steps, pieces_v, scale,
    qb, qt, qh, kb, kt, kh, vb, vt, vh,
    SHARED: tl.constexpr, PER_KEY: tl.constexpr, PRECISION: tl.constexpr,
    T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """y of a chunk from the state that enters it, for all keys and some values."""
    b, h, chunk, piece, first, stop = _place(L, H, pieces_v, chunks, steps)
    end = limit(lengths, b, L)
    c = tl.arange(0, KEYS)
    w = piece * VALUES + tl.arange(0, VALUES)
    i = tl.arange(0, T)
    inside = (c < K)[:, None] & (w < V)[None, :]
    at = c[:, None] * V + w[None, :]
    state = tl.zeros([KEYS, VALUES], tl.float32)
    if enter is not None:
        state = tl.load(enter + ((b * H + h) * chunks + chunk) * K * V + at, mask=inside, other=0.0).to(tl.float32)
    valid = tl.minimum(end, stop)
    for turn in range(tl.cdiv(stop - first, T)):
        start = first + turn * T
        t = start + i
        q_tile = _rows(q, qb, qt, qh, b, t, h // SHARED, c, K, valid) * scale
        k_tile = _rows(k, kb, kt, kh, b, t, h // SHARED, c, K, valid)
        x = _scaled(v, factor, H, vb, vt, vh, b, t, h, w, V, L, valid)
        scores = _scores(
            q_tile, k_tile, k, g, kb, kt, kh, h // SHARED, b, start, stop, end, h, c, L, H, K, PER_KEY, PRECISION, T
        )
        carried = q_tile * _since(g, b, t, h, c, L, H, K, stop, PER_KEY)
        out = tl.dot(scores, x, input_precision=PRECISION) + tl.dot(carried, state, input_precision=PRECISION)
        if skip is not None:
            plain = _rows(v, vb, vt, vh, b, t, h, w, V, valid)
            out += tl.load(skip + h).to(tl.float32) * plain
        place = ((b * L + t) * H + h)[:, None] * V + w[None, :]
        tl.store(y + place, tl.where((t < end)[:, None], out, 0.0), mask=(t < stop)[:, None] & (w < V)[None, :])
        total = tl.exp(tl.sum(_gates(g, b, t, h, c, L, H, K, stop, PER_KEY), axis=0))
        kept = k_tile * _to_end(g, b, t, h, c, L, H, K, stop, start + T, PER_KEY)
        state = total[:, None] * state + tl.dot(tl.trans(kept), x, input_precision=PRECISION)
    ours = (c < tl.where(chunk == chunks - 1, K, 0))[:, None] & (w < V)[None, :]
    tl.store(last + (b * H + h) * K * V + at, state, mask=ours)


@triton.jit
def queries_kernel(
    q, k, v, factor, g, lengths, enter, dy, dq, L, H, K, V, chunks, steps, pieces_k, scale,
    kb, kt, kh, vb, vt, vh,
    SHARED: tl.constexpr, PER_KEY: tl.constexpr, PRECISION: tl.constexpr,
    T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """The gradient of q, for some keys and all values, forward in time."""
    b, h, chunk, piece, first, stop = _place(L, H, pieces_k, chunks, steps)
    end = limit(lengths, b, L)
    c = piece * KEYS + tl.arange(0, KEYS)
    w = tl.arange(0, VALUES)
    i = tl.arange(0, T)
    inside = (c < K)[:, None] & (w < V)[None, :]
    state = tl.zeros([KEYS, VALUES], tl.float32)
    if enter is not None:
        at = ((b * H + h) * chunks + chunk) * K * V + c[:, None] * V + w[None, :]
        state = tl.load(enter + at, mask=inside, other=0.0).to(tl.float32)
    valid = tl.minimum(end, stop)
    for turn in range(tl.cdiv(stop - first, T)):
        start = first + turn * T
        t = start + i
        k_tile = _rows(k, kb, kt, kh, b, t, h // SHARED, c, K, valid)
        x = _scaled(v, factor, H, vb, vt, vh, b, t, h, w, V, L, valid)
        slope = _rows(dy, wide(L) * H * V, H * V, V, b, t, h, w, V, valid)
        products = tl.dot(slope, tl.trans(x), input_precision=PRECISION)
        found = tl.dot(slope, tl.trans(state), input_precision=PRECISION)
        found = found * _since(g, b, t, h, c, L, H, K, stop, PER_KEY)
        if PER_KEY:
            decay = tl.zeros([T, KEYS], tl.float32)
            for n in range(T):
                s = T - 1 - n
                step = start + s
                decay = tl.where((i == s)[:, None], 1.0, decay)
                mask = c < tl.where(step < valid, K, 0)
                row = tl.load(k + b * kb + step * kt + (h // SHARED) * kh + c, mask=mask, other=0.0).to(tl.float32)
                column = tl.sum(tl.where((i == s)[None, :], products, 0.0), axis=1)
                found += column[:, None] * decay * row[None, :]
                gate = tl.load(g + ((b * L + step) * H + h) * K + c, mask=c < tl.where(step < stop, K, 0), other=0.0)
                decay = decay * tl.exp(gate)[None, :]
        else:
            found += tl.dot(products * _gap(g, b, t, h, L, H, stop, T), k_tile, input_precision=PRECISION)
        place = ((b * L + t) * H + h)[:, None] * K + c[None, :]
        found = tl.where((t < end)[:, None], found * scale, 0.0)
        tl.store(dq + place, found, mask=(t < stop)[:, None] & (c < K)[None, :])
        total = tl.exp(tl.sum(_gates(g, b, t, h, c, L, H, K, stop, PER_KEY), axis=0))
        kept = k_tile * _to_end(g, b, t, h, c, L, H, K, stop, start + T, PER_KEY)
        state = total[:, None] * state + tl.dot(tl.trans(kept), x, input_precision=PRECISION)


@triton.jit
def keys_kernel(
    q, v, factor, g, lengths, enter, dy, dk, dinitial, L, H, K, V, chunks, steps, pieces_k, scale,
    qb, qt, qh, vb, vt, vh,
    SHARED: tl.constexpr, PER_KEY: tl.constexpr, PRECISION: tl.constexpr,
    T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """The gradient of k, for some keys and all values, backward in time; at the front, that of the initial state."""
    b, h, chunk, piece, first, stop = _place(L, H, pieces_k, chunks, steps)
    end = limit(lengths, b, L)
    c = piece * KEYS + tl.arange(0, KEYS)
    w = tl.arange(0, VALUES)
    i = tl.arange(0, T)
    inside = (c < K)[:, None] & (w < V)[None, :]
    at = c[:, None] * V + w[None, :]
    state = tl.zeros([KEYS, VALUES], tl.float32)
    if enter is not None:
        state = tl.load(enter + ((b * H + h) * chunks + chunk) * K * V + at, mask=inside, other=0.0).to(tl.float32)
    valid = tl.minimum(end, stop)
    count = tl.cdiv(stop - first, T)
    for turn in range(count):
        start = first + (count - 1 - turn) * T
        t = start + i
        q_tile = _rows(q, qb, qt, qh, b, t, h // SHARED, c, K, valid) * scale
        x = _scaled(v, factor, H, vb, vt, vh, b, t, h, w, V, L, valid)
        slope = _rows(dy, wide(L) * H * V, H * V, V, b, t, h, w, V, valid)
        products = tl.dot(slope, tl.trans(x), input_precision=PRECISION)
        found = tl.dot(x, tl.trans(state), input_precision=PRECISION)
        found = found * _to_end(g, b, t, h, c, L, H, K, stop, start + T, PER_KEY)
        if PER_KEY:
            decay = tl.zeros([T, KEYS], tl.float32)
            for n in range(T):
                s = T - 1 - n
                step = start + s
                decay = tl.where((i == s)[:, None], 1.0, decay)
                column = tl.sum(tl.where((i == s)[None, :], products, 0.0), axis=1)
                row = tl.sum(column[:, None] * decay * q_tile, axis=0)
                found += tl.where((i == s)[:, None], row[None, :], 0.0)
                gate = tl.load(g + ((b * L + step) * H + h) * K + c, mask=c < tl.where(step < stop, K, 0), other=0.0)
                decay = decay * tl.exp(gate)[None, :]
        else:
            weighted = products * _gap(g, b, t, h, L, H, stop, T)
            found += tl.dot(tl.trans(weighted), q_tile, input_precision=PRECISION)
        place = ((b * L + t) * H + h)[:, None] * K + c[None, :]
        found = tl.where((t < end)[:, None], found, 0.0)
        tl.store(dk + place, found, mask=(t < stop)[:, None] & (c < K)[None, :])
        total = tl.exp(tl.sum(_gates(g, b, t, h, c, L, H, K, stop, PER_KEY), axis=0))
        carried = q_tile * _since(g, b, t, h, c, L, H, K, stop, PER_KEY)
        state = total[:, None] * state + tl.dot(tl.trans(carried), slope, input_precision=PRECISION)
    if dinitial is not None:
        ours = (c < tl.where(chunk == 0, K, 0))[:, None] & (w < V)[None, :]
        tl.store(dinitial + (b * H + h) * K * V + at, state, mask=ours)


@triton.jit
def values_kernel(
    q, k, g, lengths, enter, dy, dv, L, H, K, V, chunks, steps, pieces_v, scale,
    qb, qt, qh, kb, kt, kh,
    SHARED: tl.constexpr, PER_KEY: tl.constexpr, PRECISION: tl.constexpr,
    T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """The gradient of the (scaled) v, for all keys and some values, backward in time."""
    b, h, chunk, piece, first, stop = _place(L, H, pieces_v, chunks, steps)
    end = limit(lengths, b, L)
    c = tl.arange(0, KEYS)
    w = piece * VALUES + tl.arange(0, VALUES)
    i = tl.arange(0, T)
    inside = (c < K)[:, None] & (w < V)[None, :]
    state = tl.zeros([KEYS, VALUES], tl.float32)
    if enter is not None:
        at = ((b * H + h) * chunks + chunk) * K * V + c[:, None] * V + w[None, :]
        state = tl.load(enter + at, mask=inside, other=0.0).to(tl.float32)
    valid = tl.minimum(end, stop)
    count = tl.cdiv(stop - first, T)
    for turn in range(count):
        start = first + (count - 1 - turn) * T
        t = start + i
        q_tile = _rows(q, qb, qt, qh, b, t, h // SHARED, c, K, valid) * scale
        k_tile = _rows(k, kb, kt, kh, b, t, h // SHARED, c, K, valid)
        slope = _rows(dy, wide(L) * H * V, H * V, V, b, t, h, w, V, valid)
        scores = _scores(
            q_tile, k_tile, k, g, kb, kt, kh, h // SHARED, b, start, stop, end, h, c, L, H, K, PER_KEY, PRECISION, T
        )
        kept = k_tile * _to_end(g, b, t, h, c, L, H, K, stop, start + T, PER_KEY)
        found = tl.dot(kept, state, input_precision=PRECISION)
        found += tl.dot(tl.trans(scores), slope, input_precision=PRECISION)
        place = ((b * L + t) * H + h)[:, None] * V + w[None, :]
        tl.store(dv + place, tl.where((t < end)[:, None], found, 0.0), mask=(t < stop)[:, None] & (w < V)[None, :])
        total = tl.exp(tl.sum(_gates(g, b, t, h, c, L, H, K, stop, PER_KEY), axis=0))
        carried = q_tile * _since(g, b, t, h, c, L, H, K, stop, PER_KEY)
        state = total[:, None] * state + tl.dot(tl.trans(carried), slope, input_precision=PRECISION)
