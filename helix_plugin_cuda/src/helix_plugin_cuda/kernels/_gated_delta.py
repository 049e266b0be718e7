"""The gated delta rule in tiles of time: the kernels under `gated_delta_rule`.

    u_t = β_t (v_t - α_t S_{t-1}ᵀ k_t),  S_t = α_t S_{t-1} + k_t u_tᵀ,  y_t = S_tᵀ q_t

The u of a tile solve (I + A) u = r with A strictly lower triangular. Its inverse does not depend on the state, so all
tiles are inverted side by side; one pass over tiles then carries the state, columns of v side by side.

L positions, H heads, K and V widths of a head's keys and values, T steps of a tile.

Source: Yang, Wang, Zhang, Shen and Kim, Parallelizing Linear Transformers with the Delta Rule over Sequence Length,
2024.
"""

from __future__ import annotations

import triton
import triton.language as tl

from helix_plugin_cuda.kernels._chunks import limit
from helix_plugin_cuda.kernels._launch import wide
from helix_plugin_cuda.kernels._linear_attention import _gap, _gates, _rows, _since, _to_end


@triton.jit
def inverses_kernel(
    k, beta, g, lengths, inverses, L, H, K, tiles, kb, kt, kh,
    SHARED: tl.constexpr, PRECISION: tl.constexpr, T: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """(I + A)⁻¹ of each tile, (T, T), by forward substitution."""
    program = wide(tl.program_id(0))
    tile = program % tiles
    b, h = program // tiles // H, program // tiles % H
    end = limit(lengths, b, L)
    c, i = tl.arange(0, KEYS), tl.arange(0, T)
    t = tile * T + i
    keys = _rows(k, kb, kt, kh, b, t, h // SHARED, c, K, tl.minimum(end, L))
    rate = tl.load(beta + (b * L + t) * H + h, mask=t < tl.minimum(end, L), other=0.0).to(tl.float32)
    products = tl.dot(keys, tl.trans(keys), input_precision=PRECISION) * _gap(g, b, t, h, L, H, L, T)
    solved = tl.where(i[:, None] > i[None, :], -rate[:, None] * products, 0.0)
    for n in range(1, T):
        row = tl.sum(tl.where((i == n)[:, None], solved, 0.0), axis=0)
        row += tl.sum(row[:, None] * solved, axis=0)
        solved = tl.where((i == n)[:, None], row[None, :], solved)
    solved += tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    tl.store(inverses + program * T * T + i[:, None] * T + i[None, :], solved)


@triton.jit
def forward_kernel(
    q, k, v, beta, g, lengths, inverses, initial, y, last, kept, L, H, K, V, tiles, scale,
    qb, qt, qh, kb, kt, kh, vb, vt, vh,
    SHARED: tl.constexpr, PRECISION: tl.constexpr, T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """y and the last state, forward over tiles: for all keys and some values of a head."""
    pieces = tl.cdiv(V, VALUES)
    program = wide(tl.program_id(0))
    head = program // pieces
    b, h = head // H, head % H
    end = limit(lengths, b, L)
    c, i = tl.arange(0, KEYS), tl.arange(0, T)
    w = (program % pieces) * VALUES + tl.arange(0, VALUES)
    inside = (c < K)[:, None] & (w < V)[None, :]
    at = c[:, None] * V + w[None, :]
    state = tl.zeros([KEYS, VALUES], tl.float32)
    if initial is not None:
        state = tl.load(initial + head * K * V + at, mask=inside, other=0.0).to(tl.float32)
    for tile in range(tiles):
        if kept is not None:
            tl.store(kept + (head * tiles + tile) * K * V + at, state, mask=inside)
        t = wide(tile) * T + i
        keys = _rows(k, kb, kt, kh, b, t, h // SHARED, c, K, end)
        asked = _rows(q, qb, qt, qh, b, t, h // SHARED, c, K, end) * scale
        x = _rows(v, vb, vt, vh, b, t, h, w, V, end)
        rate = tl.load(beta + (b * L + t) * H + h, mask=t < end, other=0.0).to(tl.float32)[:, None]
        since = _since(g, b, t, h, c, L, H, K, L, False)
        inverse = tl.load(inverses + (head * tiles + tile) * T * T + i[:, None] * T + i[None, :])
        right = rate * (x - since * tl.dot(keys, state, input_precision=PRECISION))
        u = tl.dot(inverse, right, input_precision=PRECISION)
        scores = tl.dot(asked, tl.trans(keys), input_precision=PRECISION) * _gap(g, b, t, h, L, H, L, T)
        out = since * tl.dot(asked, state, input_precision=PRECISION) + tl.dot(scores, u, input_precision=PRECISION)
        place = ((b * L + t) * H + h)[:, None] * V + w[None, :]
        tl.store(y + place, tl.where((t < end)[:, None], out, 0.0), mask=(t < L)[:, None] & (w < V)[None, :])
        total = tl.exp(tl.sum(_gates(g, b, t, h, c, L, H, K, L, False), axis=0))
        behind = keys * _to_end(g, b, t, h, c, L, H, K, L, wide(tile) * T + T, False)
        state = total[:, None] * state + tl.dot(tl.trans(behind), u, input_precision=PRECISION)
    tl.store(last + head * K * V + at, state, mask=inside)


@triton.jit
def backward_kernel(
    q, k, v, beta, g, lengths, inverses, kept, dy, dlast, dq, dk, dv, dbeta, dg, dinitial,
    L, H, K, V, tiles, heads, scale, qb, qt, qh, kb, kt, kh, vb, vt, vh,
    SHARED: tl.constexpr, PRECISION: tl.constexpr, T: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """All gradients, backward over tiles; those of q, k, β and g are this program's columns of v only."""
    pieces = tl.cdiv(V, VALUES)
    program = wide(tl.program_id(0))
    piece, head = program % pieces, program // pieces
    b, h = head // H, head % H
    end = limit(lengths, b, L)
    c, i = tl.arange(0, KEYS), tl.arange(0, T)
    w = piece * VALUES + tl.arange(0, VALUES)
    inside = (c < K)[:, None] & (w < V)[None, :]
    at = c[:, None] * V + w[None, :]
    ds = tl.zeros([KEYS, VALUES], tl.float32)
    if dlast is not None:
        ds = tl.load(dlast + head * K * V + at, mask=inside, other=0.0).to(tl.float32)
    below = i[:, None] > i[None, :]
    for turn in range(tiles):
        tile = wide(tiles - 1 - turn)
        t = tile * T + i
        state = tl.load(kept + (head * tiles + tile) * K * V + at, mask=inside, other=0.0)
        keys = _rows(k, kb, kt, kh, b, t, h // SHARED, c, K, end)
        asked = _rows(q, qb, qt, qh, b, t, h // SHARED, c, K, end) * scale
        x = _rows(v, vb, vt, vh, b, t, h, w, V, end)
        slope = _rows(dy, wide(L) * H * V, H * V, V, b, t, h, w, V, end)
        rate = tl.load(beta + (b * L + t) * H + h, mask=t < end, other=0.0).to(tl.float32)[:, None]
        since = _since(g, b, t, h, c, L, H, K, L, False)
        to_end = _to_end(g, b, t, h, c, L, H, K, L, tile * T + T, False)
        total = tl.exp(tl.sum(_gates(g, b, t, h, c, L, H, K, L, False), axis=0))
        gap = _gap(g, b, t, h, L, H, L, T)
        inverse = tl.load(inverses + (head * tiles + tile) * T * T + i[:, None] * T + i[None, :])
        held = tl.dot(keys, state, input_precision=PRECISION)
        u = tl.dot(inverse, rate * (x - since * held), input_precision=PRECISION)
        same = tl.dot(keys, tl.trans(keys), input_precision=PRECISION) * gap
        scores = tl.dot(asked, tl.trans(keys), input_precision=PRECISION) * gap
        du = tl.dot(tl.trans(scores), slope, input_precision=PRECISION)
        du += to_end * tl.dot(keys, ds, input_precision=PRECISION)
        dright = tl.dot(tl.trans(inverse), du, input_precision=PRECISION)
        dscores = tl.dot(slope, tl.trans(u), input_precision=PRECISION)
        dsystem = tl.where(below, -tl.dot(dright, tl.trans(u), input_precision=PRECISION), 0.0)
        dheld = -rate * since * dright
        carried = tl.dot(slope, tl.trans(state), input_precision=PRECISION)
        ends = tl.dot(u, tl.trans(ds), input_precision=PRECISION)
        weighted = dscores * gap
        mixed = dsystem * rate * gap
        found_q = tl.dot(weighted, keys, input_precision=PRECISION) + since * carried
        found_k = tl.dot(tl.trans(weighted), asked, input_precision=PRECISION) + to_end * ends
        found_k += tl.dot(dheld, tl.trans(state), input_precision=PRECISION)
        found_k += tl.dot(mixed, keys, input_precision=PRECISION)
        found_k += tl.dot(tl.trans(mixed), keys, input_precision=PRECISION)
        valid = (t < L)[:, None]
        place = ((piece * heads + b) * L + t) * H + h
        tl.store(dq + place[:, None] * K + c[None, :], found_q * scale, mask=valid & (c < K)[None, :])
        tl.store(dk + place[:, None] * K + c[None, :], found_k, mask=valid & (c < K)[None, :])
        out = ((b * L + t) * H + h)[:, None] * V + w[None, :]
        tl.store(dv + out, rate * dright, mask=valid & (w < V)[None, :])
        found_b = tl.sum(dright * (x - since * held), axis=1) + tl.sum(dsystem * same, axis=1)
        tl.store(dbeta + place, tl.where(t < end, found_b, 0.0), mask=t < L)
        # The gradient of the running sum of g, which gaps are differences of.
        pairs = dscores * scores + dsystem * rate * same
        at_end = tl.sum(keys * to_end * ends, axis=1)
        sums = tl.sum(pairs, axis=1) - tl.sum(pairs, axis=0) - at_end
        sums += tl.sum(asked * since * carried, axis=1) + tl.sum(dheld * held, axis=1)
        rest = tl.sum(at_end, axis=0) + tl.sum(tl.sum(ds * total[:, None] * state, axis=1), axis=0)
        tl.store(dg + place, tl.cumsum(sums, axis=0, reverse=True) + rest, mask=t < L)
        ds = total[:, None] * ds + tl.dot(tl.trans(asked * since), slope, input_precision=PRECISION)
        ds += tl.dot(tl.trans(keys), dheld, input_precision=PRECISION)
    if dinitial is not None:
        tl.store(dinitial + head * K * V + at, ds, mask=inside)
