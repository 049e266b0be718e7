"""RMSNorm, with or without the residual addition in front of it: one pass over each row, both ways.

D channels of a row.

Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import activation_dtype, like, needed
from helix_plugin_cuda.kernels._launch import blocks, launch, power, processors, wide
from helix_plugin_torch.arguments import Shape, check, dense


@triton.jit
def _forward(x, residual, weight, y, total, scales, rows, D, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = wide(tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < D)[None, :]
    at = row[:, None] * D + column[None, :]
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        v += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + at, v, mask=inside)
    scale = 1.0 / tl.sqrt_rn(tl.sum(v * v, axis=1) / D + eps)
    if scales is not None:
        tl.store(scales + row, scale, mask=row < rows)
    w = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)
    tl.store(y + at, v * scale[:, None] * w[None, :], mask=inside)


@triton.jit
def _backward(
    x, residual, weight, scales, dy, dtotal, dx, dweight, rows, D, rounds,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = wide(tl.program_id(0))
    column = tl.arange(0, BLOCK)
    w = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)
    summed = tl.zeros([BLOCK], tl.float32)
    for turn in range(rounds):
        row = (program + turn * tl.num_programs(0)) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < D)[None, :]
        at = row[:, None] * D + column[None, :]
        v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        if residual is not None:
            v += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(scales + row, mask=row < rows, other=0.0)
        normal = v * scale[:, None]
        d = tl.zeros([ROWS, BLOCK], tl.float32)
        if dy is not None:
            g = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
            summed += tl.sum(g * normal, axis=0)
            g = g * w[None, :]
            d = (g - normal * (tl.sum(g * normal, axis=1) / D)[:, None]) * scale[:, None]
        if dtotal is not None:
            d += tl.load(dtotal + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + at, d, mask=inside)
    tl.store(dweight + program * D + column, summed, mask=column < D)


def residuals(x: Shape, *rest: Any, eps: float = 1e-5) -> tuple[Shape, ...]:
    """One scale a row."""
    return (tuple(x[:-1]),)


def forward(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[Tensor, ...]:
    """x (..., D), weight (D,) -> y (..., D). Raises TypeError for float64, ValueError for shapes that do not fit."""
    x, weight = arrays
    y, _, _ = run("rms_norm", x, None, weight, eps=eps, train=False)
    return (y,)


def forward_train(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`, with the scale of each row."""
    x, weight = arrays
    y, _, scales = run("rms_norm", x, None, weight, eps=eps, train=True)
    return (y,), (scales,)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...], *, eps: float = 1e-5
) -> tuple[Tensor | None, ...]:
    """The gradient of y -> those of x and weight."""
    x, weight = arrays
    return run_backward("rms_norm", x, None, weight, scales=saved[0], dy=grads[0])


def _checked(op: str, x: Any, residual: Any, weight: Any) -> tuple[Any, Any, Any]:
    needed(op, {"x": x, "weight": weight}, ("x", "weight"))
    shape = tuple(x.shape)
    check(op, {"x": (x, shape), "residual": (residual, shape), "weight": (weight, shape[-1:])})
    return dense(x), dense(residual), dense(weight)


def _tile(rows: int, D: int) -> dict[str, int]:
    """Rows of a program: enough elements for its threads, as few as there are."""
    block = power(D)
    warps = min(16, max(1, block // 256))
    return {"ROWS": min(power(rows), max(1, 1024 // block)), "BLOCK": block, "num_warps": max(4, warps)}


def run(op: str, x: Any, residual: Any, weight: Any, *, eps: float, train: bool) -> tuple[Tensor, Any, Any]:
    """y, the sum (or None) and, in training, the scale of each row, of `rms_norm` and `add_rms_norm`."""
    x, residual, weight = _checked(op, x, residual, weight)
    D = x.shape[-1]
    rows = x.numel() // D if D else 0
    y = torch.empty(x.shape, dtype=activation_dtype(x, residual, weight), device=x.device)
    total = None if residual is None else torch.empty(x.shape, dtype=torch.float32, device=x.device)
    scales = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device) if train else None
    tile = _tile(rows, D)
    launch(_forward, (blocks(rows, tile["ROWS"]),), x, residual, weight, y, total, scales, rows, D, eps, **tile)
    return y, total, scales


def run_backward(
    op: str, x: Any, residual: Any, weight: Any, *, scales: Tensor, dy: Tensor | None, dtotal: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gradients of x, which is that of residual too, and weight."""
    x, residual, weight = _checked(op, x, residual, weight)
    D = x.shape[-1]
    rows = x.numel() // D if D else 0
    tile = _tile(rows, D)
    tiles = blocks(rows, tile["ROWS"])
    programs = min(tiles, 4 * processors(x.device.index))
    dx = like(x if residual is None else residual)
    dweight = torch.empty(programs, D, dtype=torch.float32, device=x.device)
    launch(
        _backward, (programs,), x, residual, weight, scales, dense(dy), dense(dtotal), dx, dweight,
        rows, D, blocks(tiles, max(programs, 1)), **tile,
    )  # fmt: skip
    return dx, dweight.sum(0).to(weight.dtype)
