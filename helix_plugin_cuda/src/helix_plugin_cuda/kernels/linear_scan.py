"""h_t = a_t h_{t-1} + x_t for every channel, in chunks; the backward recomputes from states kept every eight steps.

B sequences, L positions, D channels, T steps of a tile.
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
from helix_plugin_cuda.kernels._recurrence import recurrence
from helix_plugin_cuda.kernels._tune import Way
from helix_plugin_torch.arguments import Shape, check, dense, rows

WAYS = tuple({"channels": c, "warps": w} for c, w in ((128, 4), (64, 2), (32, 1), (256, 4)))
"""Channels of a program, and its warps."""
NAMES = ("a", "x", "initial_state", "reset", "lengths")


@triton.jit
def _local(
    a, x, dy, reset, lengths, ends, decays, L, D, chunks, steps, sab, sat, sxb, sxt,
    ADJOINT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A chunk from nothing: its end state, or the adjoint in front of it; and the product of its decays."""
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    inside = d < D
    h, decay = tl.zeros([BLOCK], tl.float32), tl.full([BLOCK], 1.0, tl.float32)
    for k in tl.range(0, stop - first, loop_unroll_factor=4):
        t = (stop - 1 - k) if ADJOINT else (first + k)
        real = t < end
        here = lanes(d, D, real)
        new = fresh(reset, b, t, L, real)
        at = tl.load(a + b * sab + t * sat + d, mask=here, other=1.0).to(tl.float32)
        if ADJOINT:
            h = h + tl.load(dy + (b * L + t) * D + d, mask=here, other=0.0).to(tl.float32)
            h = tl.where(new, 0.0, at * h)
        else:
            h = at * tl.where(new, 0.0, h)
            h += tl.load(x + b * sxb + t * sxt + d, mask=here, other=0.0).to(tl.float32)
        decay = tl.where(new, 0.0, decay * at)
    c = b * chunks + chunk
    tl.store(ends + c * D + d, h, mask=inside)
    tl.store(decays + c * D + d, decay, mask=inside)


@triton.jit
def _forward(
    a, x, reset, lengths, enter, y, last, kept, L, D, chunks, steps, sab, sat, sxb, sxt,
    T: tl.constexpr, UNROLL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    inside = d < D
    h = tl.zeros([BLOCK], tl.float32)
    if enter is not None:
        h = tl.load(enter + (b * chunks + chunk) * D + d, mask=inside, other=0.0).to(tl.float32)
    for k in tl.range(0, stop - first, loop_unroll_factor=UNROLL):
        t = first + k
        if kept is not None:
            tl.store(kept + (b * tl.cdiv(L, T) + t // T) * D + d, h, mask=lanes(d, D, t % T == 0))
        real = t < end
        here = lanes(d, D, real)
        h = tl.where(fresh(reset, b, t, L, real), 0.0, h)
        h = tl.load(a + b * sab + t * sat + d, mask=here, other=1.0).to(tl.float32) * h
        h += tl.load(x + b * sxb + t * sxt + d, mask=here, other=0.0).to(tl.float32)
        tl.store(y + (b * L + t) * D + d, tl.where(real, h, 0.0), mask=inside)
    if chunk == chunks - 1:
        tl.store(last + b * D + d, h, mask=inside)


@triton.jit
def _backward(
    a, x, reset, lengths, kept, enter, dy, da, dx, dinitial, L, D, chunks, steps, sab, sat, sxb, sxt,
    T: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, chunk, d, first, stop = place(L, D, chunks, steps, BLOCK)
    end = limit(lengths, b, L)
    inside = d < D
    g = tl.zeros([BLOCK], tl.float32)
    if enter is not None:
        g = tl.load(enter + (b * chunks + chunk) * D + d, mask=inside, other=0.0).to(tl.float32)
    for k in range(0, steps, T):
        start = first + steps - T - k
        tile = start // T
        h = tl.load(kept + (b * tl.cdiv(L, T) + tile) * D + d, mask=lanes(d, D, start < stop), other=0.0)
        before = ()
        for i in tl.static_range(T):
            t = start + i
            real = (t < stop) & (t < end)
            here = lanes(d, D, real)
            h = tl.where(fresh(reset, b, t, L, real), 0.0, h)
            before = before + (h,)  # type: ignore[assignment]  # a tuple may grow in Triton
            h = tl.load(a + b * sab + t * sat + d, mask=here, other=1.0).to(tl.float32) * h
            h += tl.load(x + b * sxb + t * sxt + d, mask=here, other=0.0).to(tl.float32)
        for j in tl.static_range(T):
            t = start + T - 1 - j
            real = (t < stop) & (t < end)
            here = lanes(d, D, real)
            if dy is not None:
                g = g + tl.load(dy + (b * L + t) * D + d, mask=here, other=0.0).to(tl.float32)
            out = (b * L + t) * D + d
            tl.store(dx + out, tl.where(real, g, 0.0), mask=lanes(d, D, t < stop))
            new = fresh(reset, b, t, L, real)
            tl.store(da + out, tl.where(real & (new == 0), g * before[T - 1 - j], 0.0), mask=lanes(d, D, t < stop))
            at = tl.load(a + b * sab + t * sat + d, mask=here, other=1.0).to(tl.float32)
            g = tl.where(new, 0.0, at * g)
    if dinitial is not None and chunk == 0:
        tl.store(dinitial + b * D + d, g, mask=inside)


def residuals(a: Shape, x: Shape, *rest: Any) -> tuple[Shape, ...]:
    """The states in front of every tile, on one axis: its number of tiles may be symbolic."""
    return ((x[0] * ((x[1] + TILE - 1) // TILE) * x[2],),)


def _run_backward(
    given: dict[str, Any], grads: tuple[Tensor | None, ...], kept: Tensor, way: Way
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    x = given["x"]
    B, L, D = x.shape
    dy, dlast = dense(grads[0]), dense(grads[1])
    da, dx, dinitial = like(given["a"]), like(x), like(given["initial_state"])
    if L == 0:
        if dinitial is not None:
            dinitial = torch.zeros_like(dinitial) if dlast is None else dlast.to(dinitial.dtype)
        return da, dx, dinitial, None, None
    block, chunks, steps, meta = _shape(x, way)
    common, tail = _common(given), (L, D, chunks, steps, *_strides(given))
    grid = (B * chunks * blocks(D, block),)
    enter = dlast
    if chunks > 1:
        shape = (B, chunks, D)
        local, decays = (torch.empty(shape, dtype=torch.float32, device=x.device) for _ in range(2))
        d = torch.zeros_like(x) if dy is None else dy
        a, x_, reset, lengths = common
        launch(_local, grid, a, x_, d, reset, lengths, local, decays, *tail, ADJOINT=True, **meta)
        enter = carry(local, decays, dlast, None, reverse=True)
    launch(_backward, grid, *common, kept, enter, dy, da, dx, dinitial, *tail, T=TILE, **meta)
    return da, dx, dinitial, None, None


def _run(given: dict[str, Any], kept: Tensor | None, way: Way) -> tuple[Tensor, Tensor]:
    """y (B, L, D), last_state (B, D) float32."""
    a, x, initial = given["a"], given["x"], given["initial_state"]
    B, L, D = x.shape
    y = torch.empty(B, L, D, dtype=activation_dtype(a, x, initial), device=x.device)
    last = torch.empty(B, D, dtype=torch.float32, device=x.device)
    if L == 0:
        return y, last.zero_() if initial is None else last.copy_(initial)
    block, chunks, steps, meta = _shape(x, way)
    common, tail = _common(given), (L, D, chunks, steps, *_strides(given))
    grid = (B * chunks * blocks(D, block),)
    enter = dense(initial)
    if chunks > 1:
        local, decays = (torch.empty(B, chunks, D, dtype=torch.float32, device=x.device) for _ in range(2))
        a_, x_, reset, lengths = common
        launch(_local, grid, a_, x_, None, reset, lengths, local, decays, *tail, ADJOINT=False, **meta)
        enter = carry(local, decays, enter, None)
    launch(_forward, grid, *common, enter, y, last, kept, *tail, T=TILE, UNROLL=unroll(L), **meta)
    return y, last


def _shape(x: Tensor, way: Way) -> tuple[int, int, int, dict[str, int]]:
    """Channels of a program, number of chunks, steps of each, and the kernels' meta arguments."""
    B, L, D = x.shape
    block = min(way["channels"], power(D, 16))
    chunks, steps = split(L, B * blocks(D, block), x.device)
    return block, chunks, steps, {"BLOCK": block, "num_warps": way["warps"]}


def _common(given: dict[str, Any]) -> tuple[Any, ...]:
    return given["a"], given["x"], flags(given["reset"]), ends(given["lengths"], given["x"].shape[1])


def _strides(given: dict[str, Any]) -> tuple[int, ...]:
    return (*strides(given["a"]), *strides(given["x"]))


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    """The five inputs of the op, in its order, by name, as the kernels read them.

    Raises TypeError for float64, ValueError for shapes that do not fit.
    """
    given = named("linear_scan", NAMES, arrays, 2)
    shape = tuple(given["x"].shape)
    if len(shape) != 3:
        raise ValueError(f"linear_scan: x must be (B, L, D), not {shape}")
    B, L, D = shape
    shapes = (shape, shape, (B, D), (B, L), (B,))
    check("linear_scan", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    return {**given, "a": rows(given["a"]), "x": rows(given["x"])}


forward, forward_train, backward = recurrence("linear_scan", WAYS, _checked, residuals, _run, _run_backward)
