"""The residual addition and the RMS normalisation behind it, in one pass over memory each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, check, empty, from_forward, single, stored_like
from helix_plugin_cpu.kernels._blocks import total
from helix_plugin_cpu.kernels._simd import VECTOR
from helix_plugin_cpu.kernels._storage import FLOAT32, kind
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_cpu.kernels.rms_norm import ROWS, backward_jobs, forward_jobs
from helix_plugin_cpu.kernels.rms_norm import residuals as norm_residuals
from helix_plugin_torch.arguments import FLOATS, Shape, dense

shared = {"x": "residual"}
"""The gradient of one is the gradient of the other, and the stream's is the one to keep in float32."""


def residuals(x: Shape, residual: Shape, weight: Shape, **attrs: Any) -> tuple[Shape, ...]:
    """1 / rms of every row of the sum."""
    return norm_residuals(x, weight)


def forward(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """x, residual (..., D), weight (D,) -> normed sum in the dtype of x, sum in float32.

    Raises TypeError for dtypes other than float32 and bfloat16.
    """
    return forward_train(*arrays, eps=eps)[0]


def forward_train(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    x, residual, weight = _checked(arrays)
    y, added = empty(x.shape, dtype=x.dtype), empty(x.shape)
    inverse = empty(residuals(x.shape, residual.shape, weight.shape)[0])
    rows, D = inverse.numel(), x.shape[-1]
    launch(
        forward_jobs, -(-rows // ROWS), x.numel(), VECTOR, kind(x),
        address(x), address(residual), address(weight), float(eps), address(y), address(added), address(inverse),
        rows, D,
    )  # fmt: skip
    return (y, added), (inverse,)


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    eps: float = 1e-5,
) -> tuple[Tensor | None, ...]:
    """The gradients of y and the sum (either may be None) -> gradients of the residual (and x) and of weight."""
    x, residual, weight = _checked(arrays)
    dy = dense(torch.zeros_like(x) if grads[0] is None else stored_like(grads[0], x))
    dsum = dense(single(grads[1]))
    check("add_rms_norm's backward", {"y": (dy, tuple(x.shape)), "sum": (dsum, tuple(x.shape))}, dtypes=FLOATS)
    inverse = from_forward("add_rms_norm", saved[0], *residuals(x.shape, residual.shape, weight.shape))
    rows, D = inverse.numel(), x.shape[-1]
    jobs = -(-rows // ROWS)
    dx, dweight = empty(x.shape), empty(jobs, D)
    launch(
        backward_jobs, jobs, 2 * x.numel(), VECTOR, kind(x, dy), FLOAT32,
        *map(address, (x, residual, weight, dy, dsum, inverse, dx, dweight)), rows, D,
    )  # fmt: skip
    return None, dx.to(arrays[1].dtype), total(dweight).to(arrays[2].dtype)  # type: ignore[union-attr]


def _checked(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor, Tensor]:
    x, residual, weight = dense(arrays[0]), dense(single(arrays[1])), dense(single(arrays[2]))
    if x is None or residual is None or weight is None:
        raise ValueError("add_rms_norm: x, residual and weight are needed")
    shape = tuple(x.shape)
    given = {"x": (x, shape), "residual": (residual, shape), "weight": (weight, shape[-1:])}
    check("add_rms_norm", given, dtypes=FLOATS)
    return x, residual, weight
