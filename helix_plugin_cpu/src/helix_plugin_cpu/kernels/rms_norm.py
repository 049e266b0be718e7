"""RMS normalisation on the CPU: each row is read from memory once, forward and backward.

`add_rms_norm` shares the kernels.

torch composes it of a power, a mean, a root and two products, each a pass over memory of its own.
Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, check, empty, from_forward, single, stored_like
from helix_plugin_cpu.kernels._blocks import total
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get, put, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, Vec, fma, load_first, splat, store, store_first
from helix_plugin_cpu.kernels._storage import kind, read, size_of, write
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import FLOATS, Shape, dense

ROWS = 64
"""Rows of a job; a constant, so that the sums of dweight do not depend on the number of threads."""


@inline
def lane_sum(vector: Vec, scratch: int) -> float:
    """The sum of the lanes; `scratch` takes a vector."""
    store(scratch, vector)
    result = np.float32(0.0)
    for lane in range(LANES):
        result += get(scratch + FLOAT * lane)
    return float(result)


@kernel
def forward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    x: int, residual: int, weight: int, eps: float, y: int, sums: int, inverse: int, rows: int, D: int,
) -> None:  # fmt: skip
    """Of x, or of x + residual, which goes to `sums`; both addresses are 0 without a residual.

    x and y are stored as `kind` says, everything else as float32.
    """
    wide = size_of(kind)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for row in range(job * ROWS, min((job + 1) * ROWS, rows)):
            squares = splat(0.0)
            for d in range(0, D, LANES):
                at = row * D + d
                x_v = read(kind, x + wide * at, D - d)
                if residual != 0:
                    x_v = x_v + load_first(residual + FLOAT * at, D - d)
                    store_first(sums + FLOAT * at, x_v, D - d)
                squares = fma(x_v, x_v, squares)
            scale = 1.0 / np.sqrt(lane_sum(squares, scratch) / D + eps)
            put(inverse + FLOAT * row, np.float32(scale))
            scale_v = splat(scale)
            for d in range(0, D, LANES):
                at = row * D + d
                x_v = load_first(sums + FLOAT * at, D - d) if residual != 0 else read(kind, x + wide * at, D - d)
                write(kind, y + wide * at, x_v * scale_v * load_first(weight + FLOAT * d, D - d), D - d)


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, kind: float, dx_kind: float,
    x: int, residual: int, weight: int, dy: int, dsum: int, inverse: int, dx: int, dweight: int, rows: int, D: int,
) -> None:  # fmt: skip
    """With r = 1 / rms: dx = r w dy - r³ x mean(x w dy), plus `dsum` if not 0. dweight (jobs, D) are partial sums.

    x and dy are stored as `kind` says, dx as `dx_kind` says, everything else as float32.
    """
    wide = size_of(kind)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        sums = dweight + FLOAT * job * D
        for d in range(0, D, LANES):
            store_first(sums + FLOAT * d, splat(0.0), D - d)
        for row in range(job * ROWS, min((job + 1) * ROWS, rows)):
            dot = splat(0.0)
            for d in range(0, D, LANES):
                at = row * D + d
                x_v = read(kind, x + wide * at, D - d)
                if residual != 0:
                    x_v = x_v + load_first(residual + FLOAT * at, D - d)
                dot = fma(x_v, load_first(weight + FLOAT * d, D - d) * read(kind, dy + wide * at, D - d), dot)
            r = np.float64(get(inverse + FLOAT * row))
            r_v, k_v = splat(r), splat(r * r * r * lane_sum(dot, scratch) / D)
            for d in range(0, D, LANES):
                at = row * D + d
                x_v, dy_v = read(kind, x + wide * at, D - d), read(kind, dy + wide * at, D - d) * r_v
                if residual != 0:
                    x_v = x_v + load_first(residual + FLOAT * at, D - d)
                dx_v = dy_v * load_first(weight + FLOAT * d, D - d) - k_v * x_v
                if dsum != 0:
                    dx_v = dx_v + load_first(dsum + FLOAT * at, D - d)
                write(dx_kind, dx + size_of(dx_kind) * at, dx_v, D - d)
                store_first(sums + FLOAT * d, fma(dy_v, x_v, load_first(sums + FLOAT * d, D - d)), D - d)


def residuals(x: Shape, weight: Shape, **attrs: Any) -> tuple[Shape, ...]:
    """1 / rms of every row."""
    rows = 1
    for size in x[:-1]:
        rows = rows * size
    return ((rows,),)


def forward(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[Tensor]:
    """x (..., D) float32 or half precision, weight (D,) -> (..., D). Raises TypeError for other dtypes."""
    return forward_train(*arrays, eps=eps)[0]


def forward_train(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    x, weight = _checked(arrays)
    y, inverse = empty(x.shape, dtype=x.dtype), empty(residuals(x.shape, weight.shape)[0])
    rows, D = inverse.numel(), x.shape[-1]
    launch(
        forward_jobs, -(-rows // ROWS), x.numel(), VECTOR, kind(x),
        address(x), 0, address(weight), float(eps), address(y), 0, address(inverse), rows, D,
    )  # fmt: skip
    return (y,), (inverse,)


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    eps: float = 1e-5,
) -> tuple[Tensor | None, ...]:
    """The gradient of y -> gradients of x and weight."""
    x, weight = _checked(arrays)
    dy = dense(torch.zeros_like(x) if grads[0] is None else stored_like(grads[0], x))
    check("rms_norm's backward", {"y": (dy, tuple(x.shape))}, dtypes=FLOATS)
    inverse = from_forward("rms_norm", saved[0], *residuals(x.shape, weight.shape))
    rows, D = inverse.numel(), x.shape[-1]
    jobs = -(-rows // ROWS)
    dx, dweight = empty(x.shape, dtype=x.dtype), empty(jobs, D)
    launch(
        backward_jobs, jobs, 2 * x.numel(), VECTOR, kind(x, dy), kind(x),
        *map(address, (x, None, weight, dy, None, inverse, dx, dweight)), rows, D,
    )  # fmt: skip
    return dx, total(dweight).to(arrays[1].dtype)  # type: ignore[union-attr]


def _checked(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    x, weight = dense(arrays[0]), dense(single(arrays[1]))
    if x is None or weight is None:
        raise ValueError("rms_norm: x and weight are needed")
    check("rms_norm", {"x": (x, tuple(x.shape)), "weight": (weight, (x.shape[-1],))}, dtypes=FLOATS)
    return x, weight
