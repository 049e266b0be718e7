"""The residual addition and the RMS normalisation behind it, in one pass over memory each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import Shape, address, check, dense
from helix_plugin_cpu.kernels._blocks import total
from helix_plugin_cpu.kernels._simd import VECTOR
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_cpu.kernels.rms_norm import ROWS, backward_jobs, forward_jobs
from helix_plugin_cpu.kernels.rms_norm import residuals as norm_residuals

shared = {"residual": "x"}
"""The gradient of one is the gradient of the other."""


def residuals(x: Shape, residual: Shape, weight: Shape, **attrs: Any) -> tuple[Shape, ...]:
    """1 / rms of every row of the sum."""
    return norm_residuals(x, weight)


def forward(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """x, residual (..., D), weight (D,) -> normed sum, sum. Raises TypeError for arrays that are not float32."""
    return forward_train(*arrays, eps=eps)[0]


def forward_train(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    x, residual, weight = _checked(arrays)
    y, added = torch.empty(x.shape), torch.empty(x.shape)
    inverse = torch.empty(residuals(x.shape, residual.shape, weight.shape)[0])
    rows, D = inverse.numel(), x.shape[-1]
    launch(
        forward_jobs, -(-rows // ROWS), x.numel(), VECTOR,
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
    """The gradients of y and the sum (either may be None) -> gradients of x (and the residual) and of weight."""
    x, residual, weight = _checked(arrays)
    dy = dense(torch.zeros(x.shape) if grads[0] is None else grads[0])
    dsum = dense(grads[1])
    check("add_rms_norm's backward", {"y": (dy, tuple(x.shape)), "sum": (dsum, tuple(x.shape))})
    rows, D = saved[0].numel(), x.shape[-1]
    jobs = -(-rows // ROWS)
    dx, dweight = torch.empty(x.shape), torch.empty(jobs, D)
    launch(
        backward_jobs, jobs, 2 * x.numel(), VECTOR,
        *(address(a) for a in (x, residual, weight, dy, dsum, saved[0], dx, dweight)), rows, D,
    )  # fmt: skip
    return dx, None, total(dweight)


def _checked(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor, Tensor]:
    x, residual, weight = (dense(array) for array in arrays)
    if x is None or residual is None or weight is None:
        raise ValueError("add_rms_norm: x, residual and weight are needed")
    shape = tuple(x.shape)
    check("add_rms_norm", {"x": (x, shape), "residual": (residual, shape), "weight": (weight, shape[-1:])})
    return x, residual, weight
