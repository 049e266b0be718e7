"""RMS normalisation on the CPU in one pass over each row, forward and backward.

torch composes it of a power, a mean, a root and two products, each a pass over memory of its own.
Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from helix_plugin_cpu.kernels._simd import LANES, Simd, Value, emit
from helix_plugin_cpu.kernels._sources import SOURCES
from helix_plugin_cpu.kernels._threads import run_jobs

FLOAT = 4
ROWS = 64
"""Rows of a job; a constant, so that the sums of dweight do not depend on the number of threads."""

Shape = tuple[int, ...]


@emit(4)
def sum_of_products(s: Simd, x: Any, y: Any, count: Any, out: Any) -> None:
    """out <- sixteen partial sums of x y over `count` whole vectors."""

    def step(i: Value, total: list[Value]) -> list[Value]:
        at = s.b.mul(i, s.index(LANES))
        return [s.fma(s.load(x, at), s.load(y, at), total[0])]

    (total,) = s.loop(count, [s.const(0.0)], step)
    s.store(total, out)


@emit(5)
def scaled_product(s: Simd, x: Any, weight: Any, scale: Any, out: Any, count: Any) -> None:
    """out <- x weight scale, with one scalar behind the address `scale`."""
    factor = s.broadcast(scale)

    def step(i: Value, _: list[Value]) -> list[Value]:
        at = s.b.mul(i, s.index(LANES))
        s.store(s.mul(s.mul(s.load(x, at), factor), s.load(weight, at)), out, at)
        return []

    s.loop(count, [], step)


@emit(8)
def row_gradient(s: Simd, x: Any, weight: Any, dy: Any, scales: Any, dx: Any, dweight: Any, count: Any, _: Any) -> None:
    """dx <- r w dy - k x and dweight += dy r x, with the scalars r, k behind the address `scales`."""
    r, k = s.broadcast(scales), s.broadcast(scales, s.index(1))

    def step(i: Value, _: list[Value]) -> list[Value]:
        at = s.b.mul(i, s.index(LANES))
        x_i, dy_i = s.load(x, at), s.mul(s.load(dy, at), r)
        s.store(s.fma(dy_i, s.load(weight, at), s.b.fneg(s.mul(k, x_i))), dx, at)
        s.store(s.fma(dy_i, x_i, s.load(dweight, at)), dweight, at)
        return []

    s.loop(count, [], step)


@njit(nogil=True, cache=True)
def _forward_jobs(start, stop, rows, x, weight, eps, y, inverse, sources=SOURCES):
    D = x.shape[1]
    whole = D // LANES
    partial = np.empty(LANES, np.float32)
    scale = np.empty(1, np.float32)
    for row in range(start * rows, min(stop * rows, x.shape[0])):
        p_x = x.ctypes.data + FLOAT * row * D
        sum_of_products(p_x, p_x, whole, partial.ctypes.data)
        total = np.float32(0)
        for i in range(LANES):
            total += partial[i]
        for d in range(whole * LANES, D):
            total += x[row, d] * x[row, d]
        scale[0] = np.float32(1) / np.sqrt(total / np.float32(D) + np.float32(eps))
        inverse[row] = scale[0]
        scaled_product(p_x, weight.ctypes.data, scale.ctypes.data, y.ctypes.data + FLOAT * row * D, whole)
        for d in range(whole * LANES, D):
            y[row, d] = x[row, d] * scale[0] * weight[d]


@njit(nogil=True, cache=True)
def _backward_jobs(start, stop, rows, x, weight, dy, inverse, dx, dweight, sources=SOURCES):
    D = x.shape[1]
    whole = D // LANES
    partial = np.empty(LANES, np.float32)
    weighted = np.empty(D, np.float32)
    one = np.ones(1, np.float32)
    scales = np.empty(2, np.float32)
    for job in range(start, stop):
        dweight[job] = 0
        for row in range(job * rows, min((job + 1) * rows, x.shape[0])):
            at = FLOAT * row * D
            p_x, p_dy = x.ctypes.data + at, dy.ctypes.data + at
            scaled_product(p_dy, weight.ctypes.data, one.ctypes.data, weighted.ctypes.data, whole)
            sum_of_products(p_x, weighted.ctypes.data, whole, partial.ctypes.data)
            total = np.float32(0)
            for i in range(LANES):
                total += partial[i]
            for d in range(whole * LANES, D):
                total += x[row, d] * dy[row, d] * weight[d]
            r = inverse[row]
            scales[0] = r
            scales[1] = r * r * r * total / np.float32(D)
            row_gradient(
                p_x,
                weight.ctypes.data,
                p_dy,
                scales.ctypes.data,
                dx.ctypes.data + at,
                dweight[job].ctypes.data,
                whole,
                0,
            )
            for d in range(whole * LANES, D):
                dx[row, d] = r * dy[row, d] * weight[d] - scales[1] * x[row, d]
                dweight[job, d] += dy[row, d] * r * x[row, d]


def residuals(x: Shape, weight: Shape, *, eps: float = 1e-5) -> tuple[Shape, ...]:
    """1 / rms of every row."""
    rows: Any = 1
    for size in x[:-1]:
        rows = rows * size
    return ((rows,),)


def forward(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[Tensor]:
    """x (..., D), weight (D,) -> (..., D). Raises TypeError for arrays that are not float32."""
    return forward_train(*arrays, eps=eps)[0]


def forward_train(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    x, weight = _check(arrays)
    flat = x.contiguous().view(-1, x.shape[-1])
    y, inverse = torch.empty(x.shape), torch.empty(flat.shape[0])
    inputs = flat.numpy(), weight.contiguous().numpy()
    out = y.view(flat.shape).numpy(), inverse.numpy()
    run_jobs(lambda a, b: _forward_jobs(a, b, ROWS, *inputs, eps, *out), -(-flat.shape[0] // ROWS), flat.numel())
    return (y,), (inverse,)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...], *, eps: float = 1e-5
) -> tuple[Tensor | None, ...]:
    """The gradient of y -> gradients of x and weight."""
    x, weight = _check(arrays)
    assert grads[0] is not None
    flat = x.contiguous().view(-1, x.shape[-1])
    dy = grads[0].contiguous().view(flat.shape)
    jobs = -(-flat.shape[0] // ROWS)
    dx, dweight = torch.empty(x.shape), torch.empty(jobs, x.shape[-1])
    inputs = flat.numpy(), weight.contiguous().numpy(), dy.numpy(), saved[0].numpy()
    out = dx.view(flat.shape).numpy(), dweight.numpy()
    run_jobs(lambda a, b: _backward_jobs(a, b, ROWS, *inputs, *out), jobs, 2 * flat.numel())
    return dx, dweight.sum(0)


def _check(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    x, weight = arrays
    assert x is not None
    assert weight is not None
    for name, array in (("x", x), ("weight", weight)):
        if array.dtype != torch.float32:
            raise TypeError(f"rms_norm: {name} is {array.dtype}; this kernel takes float32")
    if tuple(weight.shape) != (x.shape[-1],):
        raise ValueError(f"rms_norm: weight has shape {tuple(weight.shape)}, expected ({x.shape[-1]},)")
    return x.detach(), weight.detach()
