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

from helix_plugin_cpu.kernels._arguments import check
from helix_plugin_cpu.kernels._half import PANEL, WIDENED, mm
from helix_plugin_torch.arguments import Shape

TAKEN = (torch.bfloat16, torch.float16, torch.float32)


def residuals(x: Shape, weight: Shape, bias: Shape | None = None, **attrs: Any) -> tuple[Shape, ...]:
    """None."""
    return ()


def forward(*arrays: Tensor | None) -> tuple[Tensor]:
    """x (..., K), weight (N, K), bias (N,) or None -> (..., N), in the dtype of x. Raises TypeError for dtypes."""
    x, weight, bias = _checked(arrays)
    y = x.new_empty(*x.shape[:-1], weight.shape[0])
    mm(_rows(x), weight.mT, _rows(y), bias)
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
