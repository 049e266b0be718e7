"""Cross-entropy in one pass over the logits; what is kept for the backward is one number a row.

torch keeps the logarithm of the softmax, as large as the logits themselves. V classes, nats: the loss of a row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import like, needed
from helix_plugin_cuda.kernels._launch import launch, power, wide
from helix_plugin_cuda.kernels._targets import class_numbers, residuals, zero_if_ignored
from helix_plugin_torch.arguments import check, dense

__all__ = ["backward", "forward", "forward_train", "residuals"]

WIDEST = 8192
"""Most logits of a row that a program holds at once."""


@triton.jit
def _forward(logits, targets, nats, log_sums, V, BLOCK: tl.constexpr):
    row = wide(tl.program_id(0))
    base = logits + row * V
    lane = tl.arange(0, BLOCK)
    most = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        v = tl.load(base + start + lane, mask=start + lane < V, other=float("-inf")).to(tl.float32)
        # A running maximum in every lane: the sums are scaled when it rises. A NaN stays in its lane's sum.
        higher = tl.where(v > most, v, most)
        grown = tl.where(higher == most, 1.0, tl.exp(most - higher))
        total = total * grown + tl.where(v == float("-inf"), 0.0, tl.exp(v - higher))
        most = higher
    highest = tl.max(most, axis=0)
    total_all = tl.sum(tl.where(most == float("-inf"), total, total * tl.exp(most - highest)), axis=0)
    log_sum = tl.log(total_all) + highest
    target = tl.load(targets + row)
    at_target = tl.load(base + target, mask=(target >= 0) & (target < V), other=float("nan")).to(tl.float32)
    tl.store(log_sums + row, log_sum)
    tl.store(nats + row, log_sum - at_target)


@triton.jit
def _backward(logits, targets, log_sums, dnats, dlogits, V, BLOCK: tl.constexpr):
    row = wide(tl.program_id(0))
    v = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * V + v, mask=v < V, other=0.0).to(tl.float32)
    p = tl.exp(x - tl.load(log_sums + row))
    target = tl.load(targets + row)
    counts = (target >= 0) & (target < V)
    p = tl.where(v == target, p - 1.0, p) * tl.load(dnats + row).to(tl.float32)
    tl.store(dlogits + row * V + v, tl.where(counts, p, 0.0), mask=v < V)


def forward(*arrays: Tensor, ignore_index: int | None = None) -> tuple[Tensor]:
    """logits (..., V), integer targets (...) -> nats (...) float32.

    Raises TypeError for float64, ValueError for shapes that do not fit. A target outside 0..V-1 that is not ignored
    makes its row NaN: raising would have to wait for the card.
    """
    return forward_train(*arrays, ignore_index=ignore_index)[0]


def forward_train(*arrays: Tensor, ignore_index: int | None = None) -> tuple[tuple[Tensor], tuple[Tensor]]:
    """`forward`, with the logarithms of the sums."""
    logits, targets = _checked(arrays)
    nats, log_sums = (torch.empty(targets.shape, dtype=torch.float32, device=logits.device) for _ in range(2))
    V = logits.shape[-1]
    block = min(WIDEST, power(V))
    launch(_forward, (targets.numel(),), logits, targets, nats, log_sums, V, BLOCK=block, num_warps=_warps(block))
    return (zero_if_ignored(nats, targets, ignore_index),), (log_sums,)


def backward(
    grads: tuple[Tensor],
    arrays: tuple[Tensor, ...],
    saved: tuple[Tensor],
    *,
    ignore_index: int | None = None,
) -> tuple[Tensor | None, ...]:
    """The gradient of nats -> that of logits."""
    logits, targets = _checked(arrays)
    dnats = dense(zero_if_ignored(grads[0], targets, ignore_index))
    dlogits = like(logits)
    V = logits.shape[-1]
    block = min(WIDEST, power(V))
    grid = (targets.numel(), triton.cdiv(V, block))
    launch(_backward, grid, logits, targets, saved[0], dnats, dlogits, V, BLOCK=block, num_warps=_warps(block))
    return dlogits, None


def _warps(block: int) -> int:
    return min(16, max(4, block // 512))


def _checked(arrays: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """logits (..., V) and targets (...), contiguous."""
    logits, targets = arrays
    needed("cross_entropy", {"logits": logits, "targets": targets}, ("logits", "targets"))
    shape = tuple(targets.shape)
    check("cross_entropy", {"logits": (logits, (*shape, logits.shape[-1])), "targets": (targets, shape)})
    return dense(logits), class_numbers(targets)
