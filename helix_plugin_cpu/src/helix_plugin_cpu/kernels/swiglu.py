"""silu(gate) * x on the CPU in one pass, forward and backward."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, cast_back, check, empty, stored_as, stored_like, zeros
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._math import sigmoid, silu_slope
from helix_plugin_cpu.kernels._memory import take_job
from helix_plugin_cpu.kernels._simd import LANES
from helix_plugin_cpu.kernels._storage import kind, read, size_of, write
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import FLOATS, Shape, dense

PIECE = 16 * 1024
"""Elements of a job."""


@kernel
def forward_jobs(counter: int, jobs: int, scratch: int, kind: float, gate: int, x: int, y: int, size: int) -> None:
    """y = silu(gate) x, all stored as `kind` says."""
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for i in range(job * PIECE, min((job + 1) * PIECE, size), LANES):
            at, rest = size_of(kind) * i, size - i
            gate_v = read(kind, gate + at, rest)
            write(kind, y + at, gate_v * sigmoid(gate_v) * read(kind, x + at, rest), rest)


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, kind: float, gate: int, x: int, dy: int, dgate: int, dx: int, size: int
) -> None:
    """Gradients of gate and x, stored as `kind` says, as all else."""
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for i in range(job * PIECE, min((job + 1) * PIECE, size), LANES):
            at, rest = size_of(kind) * i, size - i
            gate_v, dy_v = read(kind, gate + at, rest), read(kind, dy + at, rest)
            open_v = sigmoid(gate_v)
            write(kind, dx + at, dy_v * gate_v * open_v, rest)
            write(kind, dgate + at, dy_v * read(kind, x + at, rest) * silu_slope(gate_v, open_v), rest)


def residuals(gate: Shape, x: Shape, **attrs: Any) -> tuple[Shape, ...]:
    """None."""
    return ()


def forward(*arrays: Tensor | None) -> tuple[Tensor]:
    """gate, x (...), float32 or half precision -> (...), in half if one is. Raises TypeError for other dtypes."""
    gate, x = _checked(arrays)
    y = empty(x.shape, dtype=x.dtype)
    size = x.numel()
    launch(forward_jobs, -(-size // PIECE), 2 * size, 0, kind(gate, x), address(gate), address(x), address(y), size)
    return (y,)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
    """`forward`; the backward needs the inputs only."""
    return forward(*arrays), ()


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradient of y -> gradients of gate and x."""
    gate, x = _checked(arrays)
    dy = dense(zeros(x.shape, dtype=x.dtype) if grads[0] is None else stored_like(grads[0], x))
    check("swiglu's backward", {"y": (dy, tuple(x.shape))}, dtypes=FLOATS)
    dgate, dx = empty(x.shape, dtype=x.dtype), empty(x.shape, dtype=x.dtype)
    size = x.numel()
    launch(
        backward_jobs,
        -(-size // PIECE),
        3 * size,
        0,
        kind(gate, x, dy),
        *map(address, (gate, x, dy, dgate, dx)),
        size,
    )
    return cast_back((dgate, dx), arrays)


def _checked(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    gate, x = dense(arrays[0]), dense(arrays[1])
    if gate is None or x is None:
        raise ValueError("swiglu: gate and x are needed")
    check("swiglu", {"gate": (gate, tuple(x.shape)), "x": (x, tuple(x.shape))}, dtypes=FLOATS)
    if gate.dtype == x.dtype:
        return gate, x
    half = stored_as(gate, x)
    return gate.detach().to(half), x.detach().to(half)
