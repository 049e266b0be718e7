"""silu(gate) * x on the CPU in one pass, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import Shape, address, check, dense
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._math import sigmoid, silu_slope
from helix_plugin_cpu.kernels._memory import FLOAT, take_job
from helix_plugin_cpu.kernels._simd import LANES, load_first, store_first
from helix_plugin_cpu.kernels._threads import launch

PIECE = 16 * 1024
"""Elements of a job."""


@kernel
def forward_jobs(counter: int, jobs: int, scratch: int, gate: int, x: int, y: int, size: int) -> None:
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for i in range(job * PIECE, min((job + 1) * PIECE, size), LANES):
            gate_v = load_first(gate + FLOAT * i, size - i)
            store_first(y + FLOAT * i, gate_v * sigmoid(gate_v) * load_first(x + FLOAT * i, size - i), size - i)


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, gate: int, x: int, dy: int, dgate: int, dx: int, size: int
) -> None:
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for i in range(job * PIECE, min((job + 1) * PIECE, size), LANES):
            at, rest = FLOAT * i, size - i
            gate_v, dy_v = load_first(gate + at, rest), load_first(dy + at, rest)
            open_v = sigmoid(gate_v)
            store_first(dx + at, dy_v * gate_v * open_v, rest)
            store_first(dgate + at, dy_v * load_first(x + at, rest) * silu_slope(gate_v, open_v), rest)


def residuals(gate: Shape, x: Shape, **attrs: Any) -> tuple[Shape, ...]:
    """None."""
    return ()


def forward(*arrays: Tensor | None) -> tuple[Tensor]:
    """gate, x (...) -> (...). Raises TypeError for arrays that are not float32."""
    gate, x = _checked(arrays)
    y = torch.empty(x.shape)
    size = x.numel()
    launch(forward_jobs, -(-size // PIECE), 2 * size, 0, address(gate), address(x), address(y), size)
    return (y,)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
    """`forward`; the backward needs the inputs only."""
    return forward(*arrays), ()


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradient of y -> gradients of gate and x."""
    gate, x = _checked(arrays)
    dy = dense(torch.zeros(x.shape) if grads[0] is None else grads[0])
    check("swiglu's backward", {"y": (dy, tuple(x.shape))})
    dgate, dx = torch.empty(x.shape), torch.empty(x.shape)
    size = x.numel()
    launch(backward_jobs, -(-size // PIECE), 3 * size, 0, *(address(a) for a in (gate, x, dy, dgate, dx)), size)
    return dgate, dx


def _checked(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    gate, x = dense(arrays[0]), dense(arrays[1])
    if gate is None or x is None:
        raise ValueError("swiglu: gate and x are needed")
    check("swiglu", {"gate": (gate, tuple(x.shape)), "x": (x, tuple(x.shape))})
    return gate, x
