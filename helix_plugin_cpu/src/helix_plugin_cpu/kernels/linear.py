"""The affine map of bfloat16 and float16 on processors that do not multiply them: float32 inside.

A few rows, which decoding has, are multiplied while the weights are read; more go through float32's product, a panel of
them at a time. The gradient keeps the inputs themselves, where casts would keep float32 copies of all activations.

R rows, K inputs, N outputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, check
from helix_plugin_cpu.kernels._half import PANEL, WIDENED, mm
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._memory import FLOAT, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, Vec, fma, splat, store, sum_lanes
from helix_plugin_cpu.kernels._storage import FLOAT32, kind, read, size_of, write
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import Shape, dense

TAKEN = (torch.bfloat16, torch.float16, torch.float32)
ROWS_AT_ONCE = 64
"""Rows up to which the weights are read once and multiplied as they come."""
TILE = 64
"""Outputs of a job."""
TOGETHER = 4
"""Outputs that share what is read of a row of x."""


def few_scratch(R: int, K: int) -> int:
    """Bytes that `few_rows_jobs` needs per thread: x and TOGETHER rows of weights as float32, and sums to be added."""
    return (R + TOGETHER) * -(-K // LANES) * VECTOR + R * LANES * VECTOR


@inline
def widen(kind: float, source: int, K: int, target: int) -> None:
    """K numbers as float32, zeros behind them."""
    for k in range(0, K, LANES):
        store(target + FLOAT * k, read(kind, source + size_of(kind) * k, K - k))


@inline
def dot_products(kind: float, w: int, row: int, last: int, x: int, K: int, sums: int) -> None:
    """One row of x with TOGETHER rows of weights, of which the last there is stands for missing ones."""
    w0, w1, w2, w3 = w, w + row * min(1, last), w + row * min(2, last), w + row * min(3, last)
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for k in range(0, K, LANES):
        at, left = size_of(kind) * k, K - k
        x_v: Vec = read(FLOAT32, x + FLOAT * k, LANES)
        a = fma(read(kind, w0 + at, left), x_v, a)
        b = fma(read(kind, w1 + at, left), x_v, b)
        c = fma(read(kind, w2 + at, left), x_v, c)
        d = fma(read(kind, w3 + at, left), x_v, d)
    store(sums, a)
    store(sums + VECTOR, b)
    store(sums + 2 * VECTOR, c)
    store(sums + 3 * VECTOR, d)


@kernel
def few_rows_jobs(
    counter: int, jobs: int, scratch: int, kind: float, x: int, weight: int, bias: int, y: int, R: int, K: int, N: int
) -> None:
    """TILE columns of y (R, N) a job; all arrays are stored as `kind` says, but bias (N,), which is float32 or 0."""
    wide = -(-K // LANES) * VECTOR
    w_l, sums = scratch + R * wide, scratch + (R + TOGETHER) * wide
    for r in range(R):
        widen(kind, x + size_of(kind) * r * K, K, scratch + r * wide)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for n in range(job * TILE, min((job + 1) * TILE, N), LANES):
            count = min(LANES, N - n)
            for i in range(0, count, TOGETHER):
                last = min(TOGETHER, count - i) - 1
                w = weight + size_of(kind) * (n + i) * K
                if R == 1:
                    dot_products(kind, w, size_of(kind) * K, last, scratch, K, sums + VECTOR * i)
                    continue
                for j in range(last + 1):
                    widen(kind, w + size_of(kind) * j * K, K, w_l + j * wide)
                for r in range(R):
                    at = sums + VECTOR * (LANES * r + i)
                    dot_products(FLOAT32, w_l, wide, last, scratch + r * wide, K, at)
            for r in range(R):
                total = sum_lanes(sums + VECTOR * LANES * r)
                if bias != 0:
                    total = total + read(FLOAT32, bias + FLOAT * n, count)
                write(kind, y + size_of(kind) * (r * N + n), total, count)


def residuals(x: Shape, weight: Shape, bias: Shape | None = None, **attrs: Any) -> tuple[Shape, ...]:
    """None."""
    return ()


def forward(*arrays: Tensor | None) -> tuple[Tensor]:
    """x (..., K), weight (N, K), bias (N,) or None -> (..., N), in the dtype of x. Raises TypeError for dtypes."""
    x, weight, bias = _checked(arrays)
    y = torch.empty(*x.shape[:-1], weight.shape[0], dtype=x.dtype, device=x.device)
    rows = _rows(x)
    (R, K), N = rows.shape, weight.shape[0]
    if R <= ROWS_AT_ONCE and x.dtype == weight.dtype and x.dtype in WIDENED:
        rows, weight, bias = dense(rows), dense(weight), dense(None if bias is None else bias.float())
        launch(
            few_rows_jobs, -(-N // TILE), R * K * N // 8, few_scratch(R, K),
            kind(x), *map(address, (rows, weight, bias, y)), R, K, N,
        )  # fmt: skip
    else:
        mm(rows, weight.mT, _rows(y), bias)
    return (y,)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
    """`forward`; the backward needs the inputs only."""
    return forward(*arrays), ()


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradient of y (..., N) -> gradients of x, weight and bias."""
    x, weight, bias = _checked(arrays)
    dy = x.new_zeros(*x.shape[:-1], weight.shape[0]) if grads[0] is None else grads[0].detach().to(x.dtype)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dweight = torch.empty(weight.shape, dtype=torch.float32, device=x.device)
    wide = weight.float()
    panels = zip(*(_rows(a).split(PANEL) for a in (dy, x, dx)), strict=True)
    for i, (dy_panel, x_panel, dx_panel) in enumerate(panels):
        slopes = dy_panel.float()
        dx_panel.copy_(torch.mm(slopes, wide))
        torch.addmm(dweight, slopes.mT, x_panel.float(), beta=min(i, 1), out=dweight)
    dbias = None if bias is None else _rows(dy).sum(0, dtype=torch.float32).to(bias.dtype)
    return dx, dweight.to(weight.dtype), dbias


def _checked(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
    x, weight, bias = (None if a is None else a.detach() for a in (*arrays, None)[:3])
    if x is None or weight is None:
        raise ValueError("linear: x and weight are needed")
    N, K = weight.shape
    found = {"x": (x, (*x.shape[:-1], K)), "weight": (weight, (N, K)), "bias": (bias, (N,))}
    check("linear", found, dtypes=TAKEN)
    return x, weight if x.dtype in WIDENED else weight.to(x.dtype), bias


def _rows(x: Tensor) -> Tensor:
    """(..., K) -> (R, K)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
