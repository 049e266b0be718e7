"""Mamba's selective scan in chunks of time: the state of a chunk lives in registers.

The (B, L, D, N) tensor of states is never built. The backward recomputes from the states that the forward kept every
eight steps.

B sequences (and the op's B), L positions, D channels (and the op's D), N states per channel, T steps of a tile.

Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, flags, like, named, strides
from helix_plugin_cuda.kernels._chunks import TILE, carry, fresh, limit, place, split, unroll
from helix_plugin_cuda.kernels._launch import blocks, lanes, launch, power
from helix_plugin_cuda.kernels._math import silu_slope, softplus
from helix_plugin_cuda.kernels._recurrence import recurrence
from helix_plugin_cuda.kernels._tune import Way
from helix_plugin_torch.arguments import Shape, check, dense, rows

WAYS = tuple({"elements": e, "warps": w} for e, w in ((512, 2), (256, 1), (512, 4), (1024, 4), (256, 2)))
"""Elements of state that a program holds (channels times states), and its warps."""
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "reset", "lengths")
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _scaled_decays(A, d, n, N, inside):
    """A (D, N) times log2 e: decays are then powers of two."""
    return tl.load(A + d[:, None] * N + n[None, :], mask=inside, other=0.0).to(tl.float32) * LOG2E


@triton.jit
def _raw_step(delta, bias, b, t, d, sdb, sdt, here):
    """Δ before the softplus; 0 in padding."""
    dt = tl.load(delta + b * sdb + t * sdt + d, mask=here, other=0.0).to(tl.float32)
    if bias is not None:
        dt += tl.load(bias + d, mask=here, other=0.0).to(tl.float32)
    return dt


@triton.jit
def _step(delta, bias, b, t, d, sdb, sdt, here, SOFTPLUS: tl.constexpr):
    """Δ; 0 in padding, which leaves the state as it is."""
    dt = _raw_step(delta, bias, b, t, d, sdb, sdt, here)
    if SOFTPLUS:
        dt = tl.where(here, softplus(dt), 0.0)
    return dt


@triton.jit
def _slope(z, dy, b, L, D, t, d, szb, szt, here):
    """The gradient of y in front of the gate."""
    g = tl.load(dy + (b * L + t) * D + d, mask=here, other=0.0).to(tl.float32)
    if z is not None:
        v = tl.load(z + b * szb + t * szt + d, mask=here, other=0.0).to(tl.float32)
        g = g * v * tl.sigmoid(v)
    return g


@triton.jit
def _local(
    u, delta, A, B, C, bias, z, dy, reset, lengths, ends, decays, L, D, N, chunks, steps,
    sub, sut, sdb, sdt, sBb, sBt, sCb, sCt, szb, szt,
    ADJOINT: tl.constexpr, SOFTPLUS: tl.constexpr, BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """A chunk from nothing: its end state, or the adjoint in front of it; and the product of its decays."""
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    n = tl.arange(0, STATES)
    inside = (d < D)[:, None] & (n < N)[None, :]
    rate = _scaled_decays(A, d, n, N, inside)
    h, decay = tl.zeros([BLOCK, STATES], tl.float32), tl.full([BLOCK, STATES], 1.0, tl.float32)
    for k in tl.range(0, stop - first, loop_unroll_factor=4):
        t = (stop - 1 - k) if ADJOINT else (first + k)
        real = t < end
        here = lanes(d, D, real)
        new = fresh(reset, b, t, L, real)
        dt = _step(delta, bias, b, t, d, sdb, sdt, here, SOFTPLUS)
        a = tl.exp2(dt[:, None] * rate)
        if ADJOINT:
            c = tl.load(C + b * sCb + t * sCt + n, mask=lanes(n, N, real), other=0.0).to(tl.float32)
            h = h + _slope(z, dy, b, L, D, t, d, szb, szt, here)[:, None] * c[None, :]
            h = tl.where(new, 0.0, a * h)
        else:
            v = tl.load(u + b * sub + t * sut + d, mask=here, other=0.0).to(tl.float32)
            w = tl.load(B + b * sBb + t * sBt + n, mask=lanes(n, N, real), other=0.0).to(tl.float32)
            h = a * tl.where(new, 0.0, h) + (dt * v)[:, None] * w[None, :]
        decay = tl.where(new, 0.0, decay * a)
    at = (b * chunks + chunk) * D * N + d[:, None] * N + n[None, :]
    tl.store(ends + at, h, mask=inside)
    tl.store(decays + at, decay, mask=inside)


@triton.jit
def _forward(
    u, delta, A, B, C, skip, z, bias, reset, lengths, enter, y, last, kept, L, D, N, chunks, steps,
    sub, sut, sdb, sdt, sBb, sBt, sCb, sCt, szb, szt,
    SOFTPLUS: tl.constexpr, T: tl.constexpr, UNROLL: tl.constexpr, BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    n = tl.arange(0, STATES)
    inside = (d < D)[:, None] & (n < N)[None, :]
    at = d[:, None] * N + n[None, :]
    rate = _scaled_decays(A, d, n, N, inside)
    h = tl.zeros([BLOCK, STATES], tl.float32)
    if enter is not None:
        h = tl.load(enter + (b * chunks + chunk) * D * N + at, mask=inside, other=0.0).to(tl.float32)
    if skip is not None:
        through = tl.load(skip + d, mask=d < D, other=0.0).to(tl.float32)
    for k in tl.range(0, stop - first, loop_unroll_factor=UNROLL):
        t = first + k
        if kept is not None:
            wanted = lanes(d, D, t % T == 0)[:, None] & (n < N)[None, :]
            tl.store(kept + (b * tl.cdiv(L, T) + t // T) * D * N + at, h, mask=wanted)
        real = t < end
        here, within = lanes(d, D, real), lanes(n, N, real)
        h = tl.where(fresh(reset, b, t, L, real), 0.0, h)
        dt = _step(delta, bias, b, t, d, sdb, sdt, here, SOFTPLUS)
        v = tl.load(u + b * sub + t * sut + d, mask=here, other=0.0).to(tl.float32)
        w = tl.load(B + b * sBb + t * sBt + n, mask=within, other=0.0).to(tl.float32)
        c = tl.load(C + b * sCb + t * sCt + n, mask=within, other=0.0).to(tl.float32)
        h = tl.exp2(dt[:, None] * rate) * h + (dt * v)[:, None] * w[None, :]
        out = tl.sum(h * c[None, :], axis=1)
        if skip is not None:
            out += through * v
        if z is not None:
            g = tl.load(z + b * szb + t * szt + d, mask=here, other=0.0).to(tl.float32)
            out = out * g * tl.sigmoid(g)
        tl.store(y + (b * L + t) * D + d, tl.where(here, out, 0.0), mask=d < D)
    # Only the last chunk's end is the row's.
    tl.store(last + b * D * N + at, h, mask=lanes(d, D, chunk == chunks - 1)[:, None] & (n < N)[None, :])


@triton.jit
def _backward(
    u, delta, A, B, C, skip, z, bias, reset, lengths, kept, enter, dy,
    du, ddelta, dA, dB, dC, dskip, dz, dbias, dinitial, L, D, N, chunks, steps, batch,
    sub, sut, sdb, sdt, sBb, sBt, sCb, sCt, szb, szt,
    SOFTPLUS: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    piece = tl.program_id(0) % tl.cdiv(D, BLOCK)
    end = limit(lengths, b, L)
    n = tl.arange(0, STATES)
    inside = (d < D)[:, None] & (n < N)[None, :]
    at = d[:, None] * N + n[None, :]
    rate = _scaled_decays(A, d, n, N, inside)
    g = tl.zeros([BLOCK, STATES], tl.float32)
    if enter is not None:
        g = tl.load(enter + (b * chunks + chunk) * D * N + at, mask=inside, other=0.0).to(tl.float32)
    sum_A = tl.zeros([BLOCK, STATES], tl.float32)
    sum_skip, sum_bias = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    through = tl.zeros([BLOCK], tl.float32)
    if skip is not None:
        through = tl.load(skip + d, mask=d < D, other=0.0).to(tl.float32)
    for k in range(0, steps, T):
        start = first + steps - T - k
        wanted = lanes(d, D, start < stop)[:, None] & (n < N)[None, :]
        h = tl.load(kept + (b * tl.cdiv(L, T) + start // T) * D * N + at, mask=wanted, other=0.0)
        states = (h,)
        for i in tl.static_range(T):
            t = start + i
            real = (t < stop) & (t < end)
            here = lanes(d, D, real)
            h = tl.where(fresh(reset, b, t, L, real), 0.0, h)
            dt = _step(delta, bias, b, t, d, sdb, sdt, here, SOFTPLUS)
            v = tl.load(u + b * sub + t * sut + d, mask=here, other=0.0).to(tl.float32)
            w = tl.load(B + b * sBb + t * sBt + n, mask=lanes(n, N, real), other=0.0).to(tl.float32)
            h = tl.exp2(dt[:, None] * rate) * h + (dt * v)[:, None] * w[None, :]
            states = states + (h,)  # type: ignore[assignment]  # a tuple may grow in Triton
        for j in tl.static_range(T):
            t = start + T - 1 - j
            real = (t < stop) & (t < end)
            here, within = lanes(d, D, real), lanes(n, N, real)
            new = fresh(reset, b, t, L, real)
            raw = _raw_step(delta, bias, b, t, d, sdb, sdt, here)
            dt = raw
            if SOFTPLUS:
                dt = tl.where(here, softplus(raw), 0.0)
            v = tl.load(u + b * sub + t * sut + d, mask=here, other=0.0).to(tl.float32)
            w = tl.load(B + b * sBb + t * sBt + n, mask=within, other=0.0).to(tl.float32)
            c = tl.load(C + b * sCb + t * sCt + n, mask=within, other=0.0).to(tl.float32)
            out = (b * L + t) * D + d
            slope = tl.load(dy + out, mask=here, other=0.0).to(tl.float32)
            valid = lanes(d, D, t < stop)
            if z is not None:
                gate = tl.load(z + b * szb + t * szt + d, mask=here, other=0.0).to(tl.float32)
                ungated = tl.sum(states[T - j] * c[None, :], axis=1) + through * v
                tl.store(dz + out, slope * ungated * silu_slope(gate), mask=valid)
                slope = slope * gate * tl.sigmoid(gate)
            place_n = ((piece * batch + b) * L + t) * N + n
            ours = lanes(n, N, t < stop)
            tl.store(dC + place_n, tl.sum(slope[:, None] * states[T - j], axis=0), mask=ours)
            g = g + slope[:, None] * c[None, :]
            tl.store(dB + place_n, tl.sum(g * tl.where(here, dt * v, 0.0)[:, None], axis=0), mask=ours)
            a = tl.exp2(dt[:, None] * rate)
            exponent = g * a * tl.where(new, 0.0, states[T - j - 1])
            sum_A += exponent * dt[:, None]
            gB = tl.sum(g * w[None, :], axis=1)
            ddt = tl.sum(exponent * rate, axis=1) / LOG2E + gB * v
            if SOFTPLUS:
                ddt = ddt * tl.sigmoid(raw)
            ddt = tl.where(here, ddt, 0.0)
            tl.store(ddelta + out, ddt, mask=valid)
            tl.store(du + out, gB * dt + through * slope, mask=valid)
            sum_bias += ddt
            sum_skip += slope * v
            g = tl.where(new, 0.0, a * g)
    c_at = b * chunks + chunk
    tl.store(dA + c_at * D * N + at, sum_A, mask=inside)
    if dskip is not None:
        tl.store(dskip + c_at * D + d, sum_skip, mask=d < D)
    if dbias is not None:
        tl.store(dbias + c_at * D + d, sum_bias, mask=d < D)
    if dinitial is not None:
        tl.store(dinitial + b * D * N + at, g, mask=lanes(d, D, chunk == 0)[:, None] & (n < N)[None, :])


def residuals(u: Shape, delta: Shape, A: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every tile, on one axis: its number of tiles may be symbolic."""
    return ((u[0] * ((u[1] + TILE - 1) // TILE) * u[2] * A[1],),)


def _run_backward(
    given: dict[str, Any], grads: tuple[Tensor | None, ...], kept: Tensor, way: Way, *, delta_softplus: bool = False
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    u, A, D_, z, bias = (given[name] for name in ("u", "A", "D", "z", "delta_bias"))
    (B, L, D), N = u.shape, A.shape[1]
    dlast = dense(grads[1])
    dinitial = like(given["initial_state"])
    if L == 0:
        found = [None if (a := given[n]) is None else torch.zeros_like(a) for n in NAMES[:9]]
        if dinitial is not None and dlast is not None:
            found[8] = dlast.to(dinitial.dtype)
        return (*found, None, None)
    dy = torch.zeros(u.shape, dtype=torch.float32, device=u.device) if grads[0] is None else dense(grads[0])
    block, chunks, steps, meta = _shape(u, N, way)
    grid, pieces = (B * chunks * blocks(D, block),), blocks(D, block)
    reset, lengths = flags(given["reset"]), ends(given["lengths"], L)
    sizes = (L, D, N, chunks, steps)
    common = (u, given["delta"], A, given["B"], given["C"])
    enter = dlast
    if chunks > 1:
        local, decays = (torch.empty(B, chunks, D * N, dtype=torch.float32, device=u.device) for _ in range(2))
        launch(
            _local, grid, *common, bias, z, dy, reset, lengths, local, decays, *sizes, *_strides(given),
            ADJOINT=True, SOFTPLUS=delta_softplus, **meta,
        )  # fmt: skip
        enter = carry(local, decays, dlast, None, reverse=True)
    du, ddelta, dz = like(u), like(given["delta"]), like(z)
    sums = {"dtype": torch.float32, "device": u.device}
    dA = torch.empty(B * chunks, D, N, **sums)
    dB, dC = torch.empty(pieces, B, L, N, **sums), torch.empty(pieces, B, L, N, **sums)
    dskip = None if D_ is None else torch.empty(B * chunks, D, **sums)
    dbias = None if bias is None else torch.empty(B * chunks, D, **sums)
    launch(
        _backward, grid, *common, D_, z, bias, reset, lengths, kept, enter, dy,
        du, ddelta, dA, dB, dC, dskip, dz, dbias, dinitial, *sizes, B, *_strides(given),
        SOFTPLUS=delta_softplus, T=TILE, **meta,
    )  # fmt: skip

    def total(partial: Tensor | None, name: str) -> Tensor | None:
        return None if partial is None else partial.sum(0).to(given[name].dtype)

    return (
        du, ddelta, total(dA, "A"), total(dB, "B"), total(dC, "C"), total(dskip, "D"), dz,
        total(dbias, "delta_bias"), dinitial, None, None,
    )  # fmt: skip


def _run(
    given: dict[str, Any], kept: Tensor | None, way: Way, *, delta_softplus: bool = False
) -> tuple[Tensor, Tensor]:
    """y (B, L, D), last_state (B, D, N) float32."""
    u, A, initial = given["u"], given["A"], given["initial_state"]
    (B, L, D), N = u.shape, A.shape[1]
    dtype = activation_dtype(*(given[name] for name in NAMES[:9]))
    y = torch.empty(B, L, D, dtype=dtype, device=u.device)
    last = torch.empty(B, D, N, dtype=torch.float32, device=u.device)
    if L == 0:
        return y, last.zero_() if initial is None else last.copy_(initial)
    block, chunks, steps, meta = _shape(u, N, way)
    grid = (B * chunks * blocks(D, block),)
    reset, lengths = flags(given["reset"]), ends(given["lengths"], L)
    common = (u, given["delta"], A, given["B"], given["C"])
    sizes = (L, D, N, chunks, steps)
    enter = dense(initial)
    if chunks > 1:
        local, decays = (torch.empty(B, chunks, D * N, dtype=torch.float32, device=u.device) for _ in range(2))
        launch(
            _local, grid, *common, given["delta_bias"], None, None, reset, lengths, local, decays,
            *sizes, *_strides(given), ADJOINT=False, SOFTPLUS=delta_softplus, **meta,
        )  # fmt: skip
        enter = carry(local, decays, enter, None)
    launch(
        _forward, grid, *common, given["D"], given["z"], given["delta_bias"], reset, lengths, enter, y, last, kept,
        *sizes, *_strides(given), SOFTPLUS=delta_softplus, T=TILE, UNROLL=unroll(L), **meta,
    )  # fmt: skip
    return y, last


def _shape(u: Tensor, N: int, way: Way) -> tuple[int, int, int, dict[str, int]]:
    """Channels of a program, number of chunks, steps of each, and the kernels' meta arguments."""
    B, L, D = u.shape
    states = power(N)
    block = min(power(D), max(4, way["elements"] // states))
    chunks, steps = split(L, B * blocks(D, block), u.device)
    warps = max(way["warps"], min(8, block * states // 512))
    return block, chunks, steps, {"BLOCK": block, "STATES": states, "num_warps": warps}


def _strides(given: dict[str, Any]) -> tuple[int, ...]:
    return tuple(s for name in ("u", "delta", "B", "C", "z") for s in strides(given[name]))


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    """The 11 inputs of the op, in its order, by name, as the kernels read them.

    u, delta, z (B, L, D); A (D, N); B, C (B, L, N); D, delta_bias (D,); initial_state (B, D, N); reset (B, L)
    bool; lengths (B,). From D on they are optional. Raises TypeError for float64, ValueError for shapes that do not
    fit.
    """
    given = named("selective_scan", NAMES, arrays, 5)
    shape = tuple(given["u"].shape)
    if len(shape) != 3 or given["A"].ndim != 2:
        raise ValueError(f"selective_scan: u must be (B, L, D), not {shape}, and A (D, N)")
    B, L, D = shape
    N = given["A"].shape[1]
    shapes = (shape, shape, (D, N), (B, L, N), (B, L, N), (D,), shape, (D,), (B, D, N), (B, L), (B,))
    check("selective_scan", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    strided = {name: rows(given[name]) for name in ("u", "delta", "B", "C", "z")}
    packed = {name: dense(given[name]) for name in ("A", "D", "delta_bias", "initial_state")}
    return {**given, **strided, **packed}


forward, forward_train, backward = recurrence(
    "selective_scan", WAYS, _checked, residuals, _run, _run_backward, states="A"
)
