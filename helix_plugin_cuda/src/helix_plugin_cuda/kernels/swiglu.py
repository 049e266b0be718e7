"""silu(gate) * x in one pass, both ways.

Source: Shazeer, GLU Variants Improve Transformer, 2020.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import activation_dtype, like, needed
from helix_plugin_cuda.kernels._launch import blocks, launch, wide
from helix_plugin_torch.arguments import Shape, check, dense

BLOCK = 1024


@triton.jit
def _forward(gate, x, y, n, BLOCK: tl.constexpr):
    at = wide(tl.program_id(0)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, g * tl.sigmoid(g) * v, mask=inside)


@triton.jit
def _backward(gate, x, dy, dgate, dx, n, BLOCK: tl.constexpr):
    at = wide(tl.program_id(0)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    tl.store(dx + at, d * g * s, mask=inside)
    tl.store(dgate + at, d * v * s * (1.0 + g * (1.0 - s)), mask=inside)


def residuals(gate: Shape, x: Shape) -> tuple[Shape, ...]:
    """Nothing: the backward computes from the inputs."""
    return ()


def forward(*arrays: Tensor | None) -> tuple[Tensor, ...]:
    """gate, x (...) -> y (...). Raises TypeError for float64, ValueError for shapes that do not fit."""
    gate, x = _checked(arrays)
    y = torch.empty(x.shape, dtype=activation_dtype(gate, x), device=x.device)
    launch(_forward, (blocks(x.numel(), BLOCK),), gate, x, y, x.numel(), BLOCK=BLOCK)
    return (y,)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`; nothing is kept."""
    return forward(*arrays), ()


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradient of y -> those of gate and x."""
    gate, x = _checked(arrays)
    dgate, dx = like(gate), like(x)
    launch(_backward, (blocks(x.numel(), BLOCK),), gate, x, dense(grads[0]), dgate, dx, x.numel(), BLOCK=BLOCK)
    return dgate, dx


def _checked(arrays: tuple[Tensor | None, ...]) -> tuple[Any, Any]:
    gate, x = arrays
    needed("swiglu", {"gate": gate, "x": x}, ("gate", "x"))
    shape = tuple(x.shape)  # type: ignore[union-attr]
    check("swiglu", {"gate": (gate, shape), "x": (x, shape)})
    return dense(gate), dense(x)
