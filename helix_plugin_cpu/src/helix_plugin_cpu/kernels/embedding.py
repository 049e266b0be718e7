"""Table lookup on the CPU, with the gradient of the table summed on all threads.

torch sums it on one. A job is a strip of columns, for which it goes through all tokens in their order, so that the sums
do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, check, empty
from helix_plugin_cpu.kernels._blocks import clear_rows
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, take_job
from helix_plugin_cpu.kernels._simd import LANES, load_first, store_first
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import Shape, dense
from helix_plugin_torch.native import embedding

STRIP = 4 * LANES


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, tokens: int, dy: int, dweight: int, count: int, V: int, D: int
) -> None:
    """dweight (V, D) of dy (count, D), each job a strip of channels: rows are added in the order of tokens."""
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        first = job * STRIP
        width = min(STRIP, D - first)
        clear_rows(dweight + FLOAT * first, D, V, width)
        for i in range(count):
            source = dy + FLOAT * (i * D + first)
            target = dweight + FLOAT * (get_int(tokens + 8 * i) * D + first)
            for d in range(0, width, LANES):
                here, rest = FLOAT * d, width - d
                store_first(target + here, load_first(target + here, rest) + load_first(source + here, rest), rest)


def residuals(tokens: Shape, weight: Shape, **attrs: Any) -> tuple[Shape, ...]:
    """None."""
    return ()


def forward(*arrays: Tensor | None) -> tuple[Tensor]:
    """Integer tokens (...), weight (V, D) float32 -> (..., D). Raises IndexOutOfRange for a token outside 0..V-1."""
    tokens, weight = arrays
    if tokens is None or weight is None:
        raise ValueError("embedding: tokens and weight are needed")
    return (embedding(tokens, weight.detach()),)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
    """`forward`; the backward needs the inputs only."""
    return forward(*arrays), ()


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradient of the rows -> that of the table."""
    tokens, weight = arrays
    dy = dense(grads[0])
    if tokens is None or weight is None or dy is None:
        raise ValueError("embedding's backward: tokens, weight and a gradient are needed")
    V, D = weight.shape
    found = {"tokens": (tokens, tuple(tokens.shape)), "weight": (weight, (V, D)), "y": (dy, (*tokens.shape, D))}
    check("embedding's backward", found)
    dweight = empty(V, D)
    ids = tokens.to(torch.int64).contiguous()
    count = ids.numel()
    launch(backward_jobs, -(-D // STRIP), (count + V) * D, 0, address(ids), address(dy), address(dweight), count, V, D)
    return None, dweight
