"""RWKV-4's attention in chunks of time: a channel's state is an average and the logarithm of its weight.

Averages merge like steps, so chunks run side by side, each from nothing, and are merged in order. The gradient of a
state is linear in that of a later one: with P the older state's share in the newer, dm = P dm' and, since P depends on
the weight, dz = P dz' + P (m - m') dm'. The backward recomputes from states kept every eight steps.

B sequences, L positions, D channels, T steps of a tile.

Source: Peng et al., RWKV: Reinventing RNNs for the Transformer Era, 2023.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_core.ops.wkv4 import EMPTY as _EMPTY
from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, flags, like, named, strides
from helix_plugin_cuda.kernels._chunks import TILE, fresh, limit, place, split
from helix_plugin_cuda.kernels._launch import blocks, lanes, launch, power, wide
from helix_plugin_cuda.kernels._math import log1p_exp
from helix_plugin_cuda.kernels._recurrence import recurrence
from helix_plugin_cuda.kernels._tune import Way
from helix_plugin_torch.arguments import Shape, check, dense, rows

WAYS = tuple({"channels": c, "warps": w} for c, w in ((128, 4), (64, 2), (32, 1), (256, 4)))
"""Channels of a program, and its warps."""
NAMES = ("k", "v", "log_decay", "bonus", "initial_state", "reset", "lengths")
EMPTY = tl.constexpr(_EMPTY)


@triton.jit
def _merge(m, z, value, key):
    """The average m of weight e^z with a value of weight e^key: average and logarithm of the weight."""
    top = tl.maximum(key, z, propagate_nan=tl.PropagateNan.ALL)
    return m + tl.sigmoid(key - z) * (value - m), top + log1p_exp(key - z)


@triton.jit
def _state(x, row, d, D, inside):
    """A state of (..., 2, D)."""
    m = tl.load(x + 2 * row * D + d, mask=inside, other=0.0).to(tl.float32)
    return m, tl.load(x + (2 * row + 1) * D + d, mask=inside, other=EMPTY).to(tl.float32)


@triton.jit
def _store(x, row, d, D, m, z, mask):
    tl.store(x + 2 * row * D + d, m, mask=mask)
    tl.store(x + (2 * row + 1) * D + d, z, mask=mask)


@triton.jit
def _step(k, v, b, t, d, skb, skt, svb, svt, here):
    key = tl.load(k + b * skb + t * skt + d, mask=here, other=0.0).to(tl.float32)
    return key, tl.load(v + b * svb + t * svt + d, mask=here, other=0.0).to(tl.float32)


@triton.jit
def _emptied(m, z, new):
    return tl.where(new, 0.0, m), tl.where(new, EMPTY, z)


@triton.jit
def _local(
    k, v, log_decay, reset, lengths, ends, fades, L, D, chunks, steps, skb, skt, svb, svt, BLOCK: tl.constexpr
):  # fmt: skip
    """A chunk from nothing: its end state; and the logarithm of the decay over it, EMPTY where a document starts."""
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    inside = d < D
    w = tl.load(log_decay + d, mask=inside, other=0.0).to(tl.float32)
    m, z = tl.zeros([BLOCK], tl.float32), tl.full([BLOCK], EMPTY, tl.float32)
    dropped = tl.full([], 0, tl.int1)
    last = tl.minimum(stop, end)
    for step in range(tl.maximum(last - first, 0)):
        t = first + step
        new = fresh(reset, b, t, L, True)
        dropped = dropped | new
        m, z = _emptied(m, z, new)
        key, value = _step(k, v, b, t, d, skb, skt, svb, svt, inside)
        m, z = _merge(m, z + w, value, key)
    count = tl.maximum(last - first, 0)
    fade = tl.where(count > 0, count.to(tl.float32) * w, 0.0)
    c = b * chunks + chunk
    _store(ends, c, d, D, m, z, inside)
    tl.store(fades + c * D + d, tl.where(dropped, EMPTY, fade), mask=inside)


@triton.jit
def _carry(ends, fades, initial, enter, chunks, D, BLOCK: tl.constexpr):
    """The states that enter chunks."""
    pieces = tl.cdiv(D, BLOCK)
    row = wide(tl.program_id(0)) // pieces
    d = (tl.program_id(0) % pieces) * BLOCK + tl.arange(0, BLOCK)
    inside = d < D
    m, z = tl.zeros([BLOCK], tl.float32), tl.full([BLOCK], EMPTY, tl.float32)
    if initial is not None:
        m, z = _state(initial, row, d, D, inside)
    for chunk in range(chunks):
        c = row * chunks + chunk
        _store(enter, c, d, D, m, z, inside)
        fade = tl.load(fades + c * D + d, mask=inside, other=0.0)
        m, z = _emptied(m, z, fade <= EMPTY)
        fade = tl.where(fade <= EMPTY, 0.0, fade)
        value, key = _state(ends, c, d, D, inside)
        m, z = _merge(m, z + fade, value, key)


@triton.jit
def _forward(
    k, v, log_decay, bonus, reset, lengths, enter, y, last, kept, L, D, chunks, steps, skb, skt, svb, svt,
    T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    inside = d < D
    w = tl.load(log_decay + d, mask=inside, other=0.0).to(tl.float32)
    extra = tl.load(bonus + d, mask=inside, other=0.0).to(tl.float32)
    m, z = tl.zeros([BLOCK], tl.float32), tl.full([BLOCK], EMPTY, tl.float32)
    if enter is not None:
        m, z = _state(enter, b * chunks + chunk, d, D, inside)
    for step in range(stop - first):
        t = first + step
        if kept is not None:
            _store(kept, b * tl.cdiv(L, T) + t // T, d, D, m, z, lanes(d, D, t % T == 0))
        real = t < end
        m, z = _emptied(m, z, fresh(reset, b, t, L, real))
        key, value = _step(k, v, b, t, d, skb, skt, svb, svt, lanes(d, D, real))
        out, _ = _merge(m, z, value, key + extra)
        tl.store(y + (b * L + t) * D + d, tl.where(real, out, 0.0), mask=inside)
        next_m, next_z = _merge(m, z + w, value, key)
        m, z = tl.where(real, next_m, m), tl.where(real, next_z, z)
    # Only the last chunk's end is the row's.
    _store(last, b, d, D, m, z, lanes(d, D, chunk == chunks - 1))


@triton.jit
def _slopes(
    k, v, log_decay, bonus, reset, lengths, kept, dy, slopes, shares, L, D, chunks, steps, skb, skt, svb, svt,
    T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What a chunk's y add to the gradient of the state that enters it; its share in the end state, and m's change."""
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    inside = d < D
    w = tl.load(log_decay + d, mask=inside, other=0.0).to(tl.float32)
    extra = tl.load(bonus + d, mask=inside, other=0.0).to(tl.float32)
    m, z = _state(kept, b * tl.cdiv(L, T) + first // T, d, D, inside)
    start, share = m, tl.full([BLOCK], 1.0, tl.float32)
    dm, dz = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for step in range(tl.maximum(tl.minimum(stop, end) - first, 0)):
        t = first + step
        new = fresh(reset, b, t, L, True)
        share = tl.where(new, 0.0, share)
        m, z = _emptied(m, z, new)
        key, value = _step(k, v, b, t, d, skb, skt, svb, svt, inside)
        slope = tl.load(dy + (b * L + t) * D + d, mask=inside, other=0.0).to(tl.float32)
        slope *= share * tl.sigmoid(z - key - extra)
        out, _ = _merge(m, z, value, key + extra)
        dm += slope
        dz += slope * (start - out)
        share *= tl.sigmoid(z + w - key)
        m, z = _merge(m, z + w, value, key)
    c = b * chunks + chunk
    _store(slopes, c, d, D, dm, dz, inside)
    _store(shares, c, d, D, share, share * (start - m), inside)


@triton.jit
def _carry_back(slopes, shares, dlast, enter, chunks, D, BLOCK: tl.constexpr):
    """The gradients of the states behind chunks."""
    pieces = tl.cdiv(D, BLOCK)
    row = wide(tl.program_id(0)) // pieces
    d = (tl.program_id(0) % pieces) * BLOCK + tl.arange(0, BLOCK)
    inside = d < D
    dm, dz = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    if dlast is not None:
        dm, dz = _state(dlast, row, d, D, inside)
    for turn in range(chunks):
        c = row * chunks + chunks - 1 - turn
        _store(enter, c, d, D, dm, dz, inside)
        share, change = _state(shares, c, d, D, inside)
        more_m, more_z = _state(slopes, c, d, D, inside)
        dz = more_z + share * dz + change * dm
        dm = more_m + share * dm


@triton.jit
def _backward(
    k, v, log_decay, bonus, reset, lengths, kept, enter, dy, dk, dv, dw, dbonus, dinitial,
    L, D, chunks, steps, skb, skt, svb, svt, T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    inside = d < D
    w = tl.load(log_decay + d, mask=inside, other=0.0).to(tl.float32)
    extra = tl.load(bonus + d, mask=inside, other=0.0).to(tl.float32)
    dm, dz = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    if enter is not None:
        dm, dz = _state(enter, b * chunks + chunk, d, D, inside)
    sum_w, sum_bonus = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for turn in range(0, steps, T):
        start = first + steps - T - turn
        m, z = _state(kept, b * tl.cdiv(L, T) + start // T, d, D, lanes(d, D, start < stop))
        averages, weights = (), ()
        for i in tl.static_range(T):
            t = start + i
            real = (t < stop) & (t < end)
            m, z = _emptied(m, z, fresh(reset, b, t, L, real))
            averages = averages + (m,)  # type: ignore[assignment]  # a tuple may grow in Triton
            weights = weights + (z,)  # type: ignore[assignment]  # a tuple may grow in Triton
            key, value = _step(k, v, b, t, d, skb, skt, svb, svt, lanes(d, D, real))
            next_m, next_z = _merge(m, z + w, value, key)
            m, z = tl.where(real, next_m, m), tl.where(real, next_z, z)
        for j in tl.static_range(T):
            t = start + T - 1 - j
            real = (t < stop) & (t < end)
            here = lanes(d, D, real)
            m, z = averages[T - 1 - j], weights[T - 1 - j]
            key, value = _step(k, v, b, t, d, skb, skt, svb, svt, here)
            slope = tl.load(dy + (b * L + t) * D + d, mask=here, other=0.0).to(tl.float32)
            seen, faded = key + extra - z, key - z - w
            part, rest = tl.sigmoid(seen), tl.sigmoid(-seen)
            taken, left = tl.sigmoid(faded), tl.sigmoid(-faded)
            by_seen = slope * (value - m) * part * rest
            by_taken = dm * (value - m) * taken * left
            out = (b * L + t) * D + d
            ours = lanes(d, D, t < stop)
            tl.store(dv + out, tl.where(real, slope * part + dm * taken, 0.0), mask=ours)
            tl.store(dk + out, tl.where(real, by_seen + by_taken + dz * taken, 0.0), mask=ours)
            sum_bonus += tl.where(real, by_seen, 0.0)
            sum_w += tl.where(real, dz * left - by_taken, 0.0)
            before_m = slope * rest + dm * left
            before_z = dz * left - by_taken - by_seen
            new = fresh(reset, b, t, L, real)
            before_m, before_z = tl.where(new, 0.0, before_m), tl.where(new, 0.0, before_z)
            dm, dz = tl.where(real, before_m, dm), tl.where(real, before_z, dz)
    c = b * chunks + chunk
    tl.store(dw + c * D + d, sum_w, mask=inside)
    tl.store(dbonus + c * D + d, sum_bonus, mask=inside)
    if dinitial is not None:
        _store(dinitial, b, d, D, dm, dz, lanes(d, D, chunk == 0))


def residuals(k: Shape, *rest: Any) -> tuple[Shape, ...]:
    """The states in front of every tile, on one axis: its number of tiles may be symbolic."""
    return ((k[0] * ((k[1] + TILE - 1) // TILE) * 2 * k[2],),)


def _run_backward(
    given: dict[str, Any], grads: tuple[Tensor | None, ...], kept: Tensor, way: Way
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    k, v, log_decay, bonus, initial = (given[name] for name in NAMES[:5])
    B, L, D = k.shape
    dlast, dinitial = dense(grads[1]), like(initial)
    if L == 0:
        if dinitial is not None:
            dinitial = torch.zeros_like(dinitial) if dlast is None else dlast.to(dinitial.dtype)
        flat = (torch.zeros_like(log_decay), torch.zeros_like(bonus))
        return torch.empty_like(k), torch.empty_like(v), *flat, dinitial, None, None
    dy = torch.zeros(k.shape, dtype=torch.float32, device=k.device) if grads[0] is None else dense(grads[0])
    grid, chunks, meta = _shape(k, way)
    common, tail = _common(given), _tail(given, chunks)
    sums = {"dtype": torch.float32, "device": k.device}
    enter = dlast
    if chunks[0] > 1:
        slopes, shares, enter = (torch.empty(B, chunks[0], 2, D, **sums) for _ in range(3))
        launch(_slopes, grid, *common, kept, dy, slopes, shares, *tail, T=TILE, **meta)
        launch(
            _carry_back, (B * blocks(D, meta["BLOCK"]),), slopes, shares, dlast, enter, chunks[0], D,
            BLOCK=meta["BLOCK"],
        )  # fmt: skip
    dk, dv = like(k), like(v)
    dw, dbonus = (torch.empty(B * chunks[0], D, **sums) for _ in range(2))
    launch(_backward, grid, *common, kept, enter, dy, dk, dv, dw, dbonus, dinitial, *tail, T=TILE, **meta)
    return dk, dv, dw.sum(0).to(log_decay.dtype), dbonus.sum(0).to(bonus.dtype), dinitial, None, None


def _run(given: dict[str, Any], kept: Tensor | None, way: Way) -> tuple[Tensor, Tensor]:
    """y (B, L, D), last_state (B, 2, D) float32."""
    k, initial = given["k"], given["initial_state"]
    B, L, D = k.shape
    made = {"dtype": torch.float32, "device": k.device}
    y = torch.empty(B, L, D, dtype=activation_dtype(*(given[name] for name in NAMES[:5])), device=k.device)
    last = torch.empty(B, 2, D, **made)
    if L == 0:
        if initial is not None:
            return y, last.copy_(initial)
        last[:, 0], last[:, 1] = 0.0, _EMPTY
        return y, last
    grid, chunks, meta = _shape(k, way)
    common, tail = _common(given), _tail(given, chunks)
    enter = initial
    if chunks[0] > 1:
        local, enter = (torch.empty(B, chunks[0], 2, D, **made) for _ in range(2))
        fades = torch.empty(B, chunks[0], D, **made)
        keys, values, decay, _, *ragged = common
        launch(_local, grid, keys, values, decay, *ragged, local, fades, *tail, **meta)
        block = meta["BLOCK"]
        launch(_carry, (B * blocks(D, block),), local, fades, initial, enter, chunks[0], D, BLOCK=block)
    launch(_forward, grid, *common, enter, y, last, kept, *tail, T=TILE, **meta)
    return y, last


def _shape(k: Tensor, way: Way) -> tuple[tuple[int, ...], tuple[int, int], dict[str, int]]:
    """The grid, number of chunks and steps of each, and the kernels' meta arguments."""
    B, L, D = k.shape
    block = min(way["channels"], power(D, 16))
    chunks = split(L, B * blocks(D, block), k.device)
    return (B * chunks[0] * blocks(D, block),), chunks, {"BLOCK": block, "num_warps": way["warps"]}


def _common(given: dict[str, Any]) -> tuple[Any, ...]:
    return (*(given[name] for name in NAMES[:4]), flags(given["reset"]), ends(given["lengths"], given["k"].shape[1]))


def _tail(given: dict[str, Any], chunks: tuple[int, int]) -> tuple[int, ...]:
    return (*given["k"].shape[1:], *chunks, *strides(given["k"]), *strides(given["v"]))


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    """The seven inputs of the op, in its order, by name, as the kernels read them.

    Raises TypeError for float64, ValueError for shapes that do not fit.
    """
    given = named("wkv4", NAMES, arrays, 4)
    shape = tuple(given["k"].shape)
    if len(shape) != 3:
        raise ValueError(f"wkv4: k must be (B, L, D), not {shape}")
    B, L, D = shape
    shapes = (shape, shape, (D,), (D,), (B, 2, D), (B, L), (B,))
    check("wkv4", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    packed = {name: dense(given[name]) for name in ("log_decay", "bonus", "initial_state")}
    return {**given, **packed, "k": rows(given["k"]), "v": rows(given["v"])}


forward, forward_train, backward = recurrence("wkv4", WAYS, _checked, residuals, _run, _run_backward)
