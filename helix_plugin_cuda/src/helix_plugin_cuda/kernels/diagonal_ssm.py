"""S4D's recurrence in chunks of time: the complex state of a chunk lives in registers as two blocks.

The backward recomputes from the states that the forward kept every 32 steps.

B sequences, L positions, D channels, N complex states per channel, T steps of a tile.

Source: Gu, Gupta, Goel and Ré, On the Parameterization and Initialization of Diagonal State Space Models, 2022.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, flags, like, named, strides
from helix_plugin_cuda.kernels._chunks import TILE, fresh, limit, place, split, unroll
from helix_plugin_cuda.kernels._launch import blocks, lanes, launch, power, wide
from helix_plugin_cuda.kernels._recurrence import recurrence
from helix_plugin_cuda.kernels._tune import Way
from helix_plugin_torch.arguments import Shape, check, dense, rows

WAYS = tuple({"elements": e, "warps": w} for e, w in ((256, 2), (128, 1), (256, 4), (512, 4), (256, 1)))
"""Elements of state that a program holds (channels times states), and its warps."""
NAMES = ("u", "log_a", "c", "initial_state", "reset", "lengths")
SEGMENT = 32
"""Steps between states that are kept: at two numbers for each mode, more of them would be most of the traffic."""


@triton.jit
def _pair(x, at, mask):
    """Numbers of (..., 2): real and imaginary."""
    re = tl.load(x + 2 * at, mask=mask, other=0.0).to(tl.float32)
    return re, tl.load(x + 2 * at + 1, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store_pair(x, at, re, im, mask):
    tl.store(x + 2 * at, re, mask=mask)
    tl.store(x + 2 * at + 1, im, mask=mask)


@triton.jit
def _system(log_a, c, d, D, N, STATES: tl.constexpr):
    """Modes of the channels d: numbers, which there are, where they are, a = exp(log_a) (0 beside them), and c."""
    n = tl.arange(0, STATES)
    inside = (d < D)[:, None] & (n < N)[None, :]
    at = d[:, None] * N + n[None, :]
    re, im = _pair(log_a, at, inside)
    size = tl.where(inside, tl.exp(re), 0.0)
    c_re, c_im = _pair(c, at, inside)
    return n, inside, at, size * tl.cos(im), size * tl.sin(im), c_re, c_im


@triton.jit
def _power(re, im, n):
    """(re + i im)^n, by squaring."""
    out_re, out_im = tl.zeros_like(re) + 1.0, tl.zeros_like(im)
    while n > 0:
        odd = n % 2 == 1
        more_re, more_im = out_re * re - out_im * im, out_re * im + out_im * re
        out_re, out_im = tl.where(odd, more_re, out_re), tl.where(odd, more_im, out_im)
        re, im = re * re - im * im, 2.0 * re * im
        n = n // 2
    return out_re, out_im


@triton.jit
def _next(re, im, a_re, a_im, v, new, real):
    """The state behind a step; padding leaves it as it is."""
    re, im = tl.where(new, 0.0, re), tl.where(new, 0.0, im)
    next_re, next_im = a_re * re - a_im * im + v[:, None], a_re * im + a_im * re
    return tl.where(real, next_re, re), tl.where(real, next_im, im)


@triton.jit
def _before(re, im, a_re, a_im, new, real):
    """The gradient of the state in front of a step."""
    next_re, next_im = a_re * re + a_im * im, a_re * im - a_im * re
    next_re, next_im = tl.where(new, 0.0, next_re), tl.where(new, 0.0, next_im)
    return tl.where(real, next_re, re), tl.where(real, next_im, im)


@triton.jit
def _local(
    u, log_a, c, dy, reset, lengths, ends, decays, L, D, N, chunks, steps, sub, sut,
    ADJOINT: tl.constexpr, BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """A chunk from nothing: its end state, or the adjoint in front of it; and the product of its decays."""
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    n, inside, at, a_re, a_im, c_re, c_im = _system(log_a, c, d, D, N, STATES)
    re, im = tl.zeros([BLOCK, STATES], tl.float32), tl.zeros([BLOCK, STATES], tl.float32)
    dropped = tl.full([], 0, tl.int1)
    for k in tl.range(0, stop - first, loop_unroll_factor=4):
        t = (stop - 1 - k) if ADJOINT else (first + k)
        real = t < end
        here = lanes(d, D, real)
        new = fresh(reset, b, t, L, real)
        if ADJOINT:
            slope = 2.0 * tl.load(dy + (b * L + t) * D + d, mask=here, other=0.0).to(tl.float32)[:, None]
            re, im = _before(re + slope * c_re, im - slope * c_im, a_re, a_im, new, real)
        else:
            v = tl.load(u + b * sub + t * sut + d, mask=here, other=0.0).to(tl.float32)
            re, im = _next(re, im, a_re, a_im, v, new, real)
        dropped = dropped | new
    count = tl.maximum(tl.minimum(stop, end) - first, 0)
    decay_re, decay_im = _power(a_re, -a_im if ADJOINT else a_im, count)
    place_c = (b * chunks + chunk) * D * N + at
    _store_pair(ends, place_c, re, im, inside)
    _store_pair(decays, place_c, tl.where(dropped, 0.0, decay_re), tl.where(dropped, 0.0, decay_im), inside)


@triton.jit
def _carry(ends, decays, initial, enter, chunks, M, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
    """state of chunk c+1 = decay of chunk c * state entering chunk c + what chunk c adds."""
    pieces = tl.cdiv(M, BLOCK)
    row = wide(tl.program_id(0)) // pieces
    m = (tl.program_id(0) % pieces) * BLOCK + tl.arange(0, BLOCK)
    inside = m < M
    re, im = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    if initial is not None:
        re, im = _pair(initial, row * M + m, inside)
    for k in range(chunks):
        at = (row * chunks + (chunks - 1 - k if REVERSE else k)) * M + m
        _store_pair(enter, at, re, im, inside)
        decay_re, decay_im = _pair(decays, at, inside)
        more_re, more_im = _pair(ends, at, inside)
        # What a new document drops stays dropped, were it infinite.
        gone = (decay_re == 0.0) & (decay_im == 0.0)
        kept_re, kept_im = decay_re * re - decay_im * im, decay_re * im + decay_im * re
        re, im = tl.where(gone, 0.0, kept_re) + more_re, tl.where(gone, 0.0, kept_im) + more_im


@triton.jit
def _forward(
    u, log_a, c, reset, lengths, enter, y, last, kept, L, D, N, chunks, steps, sub, sut,
    SEGMENT: tl.constexpr, UNROLL: tl.constexpr, BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    n, inside, at, a_re, a_im, c_re, c_im = _system(log_a, c, d, D, N, STATES)
    re, im = tl.zeros([BLOCK, STATES], tl.float32), tl.zeros([BLOCK, STATES], tl.float32)
    if enter is not None:
        re, im = _pair(enter, (b * chunks + chunk) * D * N + at, inside)
    for k in tl.range(0, stop - first, loop_unroll_factor=UNROLL):
        t = first + k
        if kept is not None:
            wanted = lanes(d, D, t % SEGMENT == 0)[:, None] & (n < N)[None, :]
            _store_pair(kept, (b * tl.cdiv(L, SEGMENT) + t // SEGMENT) * D * N + at, re, im, wanted)
        real = t < end
        here = lanes(d, D, real)
        v = tl.load(u + b * sub + t * sut + d, mask=here, other=0.0).to(tl.float32)
        re, im = _next(re, im, a_re, a_im, v, fresh(reset, b, t, L, real), real)
        out = 2.0 * tl.sum(c_re * re - c_im * im, axis=1)
        tl.store(y + (b * L + t) * D + d, tl.where(here, out, 0.0), mask=d < D)
    # Only the last chunk's end is the row's.
    _store_pair(last, b * D * N + at, re, im, lanes(d, D, chunk == chunks - 1)[:, None] & (n < N)[None, :])


@triton.jit
def _backward(
    u, log_a, c, reset, lengths, kept, enter, dy, du, dlog_a, dc, dinitial, L, D, N, chunks, steps, sub, sut,
    SEGMENT: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    n, inside, at, a_re, a_im, c_re, c_im = _system(log_a, c, d, D, N, STATES)
    g_re, g_im = tl.zeros([BLOCK, STATES], tl.float32), tl.zeros([BLOCK, STATES], tl.float32)
    if enter is not None:
        g_re, g_im = _pair(enter, (b * chunks + chunk) * D * N + at, inside)
    da_re, da_im = tl.zeros([BLOCK, STATES], tl.float32), tl.zeros([BLOCK, STATES], tl.float32)
    dc_re, dc_im = tl.zeros([BLOCK, STATES], tl.float32), tl.zeros([BLOCK, STATES], tl.float32)
    for k in range(0, steps, T):
        start = first + steps - T - k
        segment = start // SEGMENT
        wanted = lanes(d, D, start < stop)[:, None] & (n < N)[None, :]
        re, im = _pair(kept, (b * tl.cdiv(L, SEGMENT) + segment) * D * N + at, wanted)
        for j in range(start - segment * SEGMENT):
            t = segment * SEGMENT + j
            real = (t < stop) & (t < end)
            v = tl.load(u + b * sub + t * sut + d, mask=lanes(d, D, real), other=0.0).to(tl.float32)
            re, im = _next(re, im, a_re, a_im, v, fresh(reset, b, t, L, real), real)
        states_re, states_im = (re,), (im,)
        for i in tl.static_range(T):
            t = start + i
            real = (t < stop) & (t < end)
            v = tl.load(u + b * sub + t * sut + d, mask=lanes(d, D, real), other=0.0).to(tl.float32)
            re, im = _next(re, im, a_re, a_im, v, fresh(reset, b, t, L, real), real)
            states_re = states_re + (re,)  # type: ignore[assignment]  # a tuple may grow in Triton
            states_im = states_im + (im,)  # type: ignore[assignment]  # a tuple may grow in Triton
        for j in tl.static_range(T):
            t = start + T - 1 - j
            real = (t < stop) & (t < end)
            new = fresh(reset, b, t, L, real)
            slope = tl.load(dy + (b * L + t) * D + d, mask=lanes(d, D, real), other=0.0).to(tl.float32)[:, None]
            dc_re += slope * states_re[T - j]
            dc_im -= slope * states_im[T - j]
            g_re += 2.0 * slope * c_re
            g_im -= 2.0 * slope * c_im
            v = tl.where(real, tl.sum(g_re, axis=1), 0.0)
            tl.store(du + (b * L + t) * D + d, v, mask=lanes(d, D, t < stop))
            through = real & (new == 0)
            from_re = tl.where(through, states_re[T - j - 1], 0.0)
            from_im = tl.where(through, states_im[T - j - 1], 0.0)
            da_re += g_re * from_re + g_im * from_im
            da_im += g_im * from_re - g_re * from_im
            g_re, g_im = _before(g_re, g_im, a_re, a_im, new, real)
    place_c = (b * chunks + chunk) * D * N + at
    _store_pair(dlog_a, place_c, a_re * da_re + a_im * da_im, a_re * da_im - a_im * da_re, inside)
    _store_pair(dc, place_c, 2.0 * dc_re, 2.0 * dc_im, inside)
    if dinitial is not None:
        ours = lanes(d, D, chunk == 0)[:, None] & (n < N)[None, :]
        _store_pair(dinitial, b * D * N + at, g_re, g_im, ours)


def residuals(u: Shape, log_a: Shape, *rest: Any) -> tuple[Shape, ...]:
    """The states in front of every segment, on one axis: their number may be symbolic."""
    return ((u[0] * ((u[1] + SEGMENT - 1) // SEGMENT) * u[2] * log_a[1] * 2,),)


def _run_backward(
    given: dict[str, Any], grads: tuple[Tensor | None, ...], kept: Tensor, way: Way
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    u, log_a, c, initial = (given[name] for name in NAMES[:4])
    (B, L, D), N = u.shape, log_a.shape[1]
    dlast, dinitial = dense(grads[1]), like(initial)
    if L == 0:
        if dinitial is not None:
            dinitial = torch.zeros_like(dinitial) if dlast is None else dlast.to(dinitial.dtype)
        return torch.empty_like(u), torch.zeros_like(log_a), torch.zeros_like(c), dinitial, None, None
    dy = torch.zeros(u.shape, dtype=torch.float32, device=u.device) if grads[0] is None else dense(grads[0])
    grid, chunks, steps, meta = _shape(u, N, way)
    common, tail = (u, log_a, c), (L, D, N, chunks, steps, *strides(u))
    reset, lengths = flags(given["reset"]), ends(given["lengths"], L)
    enter = dlast
    if chunks > 1:
        enter = _enter((*common, dy, reset, lengths), tail, dlast, grid, meta, adjoint=True)
    du = like(u)
    sums = {"dtype": torch.float32, "device": u.device}
    dlog_a, dc = (torch.empty(B * chunks, D, N, 2, **sums) for _ in range(2))
    launch(
        _backward, grid, *common, reset, lengths, kept, enter, dy, du, dlog_a, dc, dinitial, *tail,
        SEGMENT=SEGMENT, T=TILE, **meta,
    )  # fmt: skip
    return du, dlog_a.sum(0).to(log_a.dtype), dc.sum(0).to(c.dtype), dinitial, None, None


def _run(given: dict[str, Any], kept: Tensor | None, way: Way) -> tuple[Tensor, Tensor]:
    """y (B, L, D), last_state (B, D, N, 2) float32."""
    u, log_a, c, initial = (given[name] for name in NAMES[:4])
    (B, L, D), N = u.shape, log_a.shape[1]
    y = torch.empty(B, L, D, dtype=activation_dtype(u, log_a, c, initial), device=u.device)
    last = torch.empty(B, D, N, 2, dtype=torch.float32, device=u.device)
    if L == 0:
        return y, last.zero_() if initial is None else last.copy_(initial)
    grid, chunks, steps, meta = _shape(u, N, way)
    common, tail = (u, log_a, c), (L, D, N, chunks, steps, *strides(u))
    reset, lengths = flags(given["reset"]), ends(given["lengths"], L)
    enter = initial
    if chunks > 1:
        enter = _enter((*common, None, reset, lengths), tail, initial, grid, meta, adjoint=False)
    launch(
        _forward, grid, *common, reset, lengths, enter, y, last, kept, *tail,
        SEGMENT=SEGMENT, UNROLL=unroll(L), **meta,
    )  # fmt: skip
    return y, last


def _enter(
    arrays: tuple[Any, ...], tail: tuple[int, ...], initial: Tensor | None, grid: tuple[int, ...], meta: dict[str, int],
    *, adjoint: bool,
) -> Tensor:  # fmt: skip
    """The states that enter chunks, or the gradients behind them: (B, chunks, D * N, 2)."""
    u, (_, D, N, chunks, *_) = arrays[0], tail
    local, decays, enter = (
        torch.empty(u.shape[0], chunks, D * N, 2, dtype=torch.float32, device=u.device) for _ in range(3)
    )
    launch(_local, grid, *arrays, local, decays, *tail, ADJOINT=adjoint, **meta)
    block = 256
    launch(
        _carry, (u.shape[0] * blocks(D * N, block),), local, decays, initial, enter, chunks, D * N,
        REVERSE=adjoint, BLOCK=block,
    )  # fmt: skip
    return enter


def _shape(u: Tensor, N: int, way: Way) -> tuple[tuple[int, ...], int, int, dict[str, int]]:
    """The grid, number of chunks, steps of each, and the kernels' meta arguments."""
    B, L, D = u.shape
    states = power(N)
    block = min(power(D), max(4, way["elements"] // states))
    chunks, steps = split(L, B * blocks(D, block), u.device, SEGMENT)
    warps = max(way["warps"], min(8, block * states // 256))
    meta = {"BLOCK": block, "STATES": states, "num_warps": warps}
    return (B * chunks * blocks(D, block),), chunks, steps, meta


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    """The six inputs of the op, in its order, by name, as the kernels read them.

    Raises TypeError for float64, ValueError for shapes that do not fit.
    """
    given = named("diagonal_ssm", NAMES, arrays, 3)
    shape = tuple(given["u"].shape)
    if len(shape) != 3 or given["log_a"].ndim != 3:
        raise ValueError(f"diagonal_ssm: u must be (B, L, D), not {shape}, and log_a (D, N, 2)")
    B, L, D = shape
    system = (D, given["log_a"].shape[1], 2)
    shapes = (shape, system, system, (B, *system), (B, L), (B,))
    check("diagonal_ssm", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    packed = {name: dense(given[name]) for name in ("log_a", "c", "initial_state")}
    return {**given, **packed, "u": rows(given["u"])}


forward, forward_train, backward = recurrence(
    "diagonal_ssm", WAYS, _checked, residuals, _run, _run_backward, states="log_a"
)
