"""The loss of a language model's head, whose logits never leave the registers on the way forward.

A running maximum over blocks of classes gives each row's logarithm of the sum of exponentials, which is kept. The
backward pass computes the logits again, writes their gradient for a chunk of rows, and multiplies by that.

N rows, D channels, V classes, nats: the loss of a row.

Sources: Milakov and Gimelshein, Online normalizer calculation for softmax, 2018; Wijmans et al., Cut Your Losses in
Large-Vocabulary Language Models, 2024.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import needed
from helix_plugin_cuda.kernels._launch import INTERPRETED, blocks, launch, power, precision, processors, wide
from helix_plugin_cuda.kernels._targets import class_numbers, residuals, zero_if_ignored
from helix_plugin_cuda.kernels._tune import Way, chosen, size_class
from helix_plugin_torch.arguments import check, dense
from helix_plugin_torch.linear_cross_entropy import gradients

__all__ = ["backward", "forward", "forward_train", "residuals"]

CHUNK = 1 << 10 if INTERPRETED else 1 << 26
"""Logits of a chunk whose gradient is in memory."""
WAYS = tuple(
    {"rows": r, "classes": c, "depth": d, "warps": w, "stages": s}
    for r, c, d, w, s in ((64, 128, 32, 4, 2), (128, 128, 32, 8, 3), (128, 128, 64, 8, 3), (128, 256, 64, 8, 3))
)
"""Most rows, classes and numbers of depth of a program's block of logits, warps, stages of its loads."""


@triton.jit
def _logits(x, weight, row, column, rows, V, D, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
            ROWS: tl.constexpr, CLASSES: tl.constexpr, DEPTH: tl.constexpr):  # fmt: skip
    """A block of logits (ROWS, CLASSES), in float32."""
    found = tl.zeros([ROWS, CLASSES], tl.float32)
    for start in range(0, D, DEPTH):
        d = start + tl.arange(0, DEPTH)
        a = tl.load(x + row[:, None] * D + d[None, :], mask=(row < rows)[:, None] & (d < D)[None, :], other=0.0)
        b = tl.load(weight + column[None, :] * D + d[:, None], mask=(column < V)[None, :] & (d < D)[:, None], other=0.0)
        if WIDEN:
            found = tl.dot(a.to(tl.float32), b.to(tl.float32), found, input_precision=PRECISION)
        else:
            found = tl.dot(a, b, found, input_precision=PRECISION)
    return found


@triton.jit
def _forward(
    x, weight, targets, log_sums, picked, rows, V, D, span, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    ROWS: tl.constexpr, CLASSES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Of `span` classes: the logarithm of their sum of exponentials, and the target's logit if it is one of them."""
    row = wide(tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * span
    target = tl.load(targets + row, mask=row < rows, other=0)
    at_target = tl.where((target >= 0) & (target < V), 0.0, float("nan"))
    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(first, tl.minimum(first + span, V), CLASSES):
        column = wide(start) + tl.arange(0, CLASSES)
        logits = _logits(x, weight, row, column, rows, V, D, PRECISION, WIDEN, ROWS, CLASSES, DEPTH)
        at_target += tl.sum(tl.where(column[None, :] == target[:, None], logits, 0.0), axis=1)
        logits = tl.where((column < V)[None, :], logits, float("-inf"))
        # A NaN is no maximum; it comes through the sum.
        higher = tl.maximum(most, tl.max(tl.where(logits == logits, logits, float("-inf")), axis=1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(most - shift) + tl.sum(tl.exp(logits - shift[:, None]), axis=1)
        most = higher
    at = wide(tl.program_id(1)) * rows + row
    tl.store(log_sums + at, tl.log(total) + tl.where(most == float("-inf"), 0.0, most), mask=row < rows)
    tl.store(picked + at, at_target, mask=row < rows)


@triton.jit
def _logit_gradients(
    x, weight, targets, log_sums, dnats, dlogits, rows, V, D, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    ROWS: tl.constexpr, CLASSES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The gradient of the logits (rows, V)."""
    row = wide(tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
    column = wide(tl.program_id(1)) * CLASSES + tl.arange(0, CLASSES)
    inside = row < rows
    logits = _logits(x, weight, row, column, rows, V, D, PRECISION, WIDEN, ROWS, CLASSES, DEPTH)
    p = tl.exp(logits - tl.load(log_sums + row, mask=inside, other=0.0)[:, None])
    target = tl.load(targets + row, mask=inside, other=0)
    p = tl.where(column[None, :] == target[:, None], p - 1.0, p)
    p *= tl.load(dnats + row, mask=inside, other=0.0)[:, None]
    p = tl.where(((target >= 0) & (target < V))[:, None], p, 0.0)
    tl.store(dlogits + row[:, None] * V + column[None, :], p, mask=inside[:, None] & (column < V)[None, :])


def forward(*arrays: Tensor, ignore_index: int | None = None) -> tuple[Tensor]:
    """x (..., D), weight (V, D), integer targets (...) -> nats (...) float32.

    Raises TypeError for float64, ValueError for shapes that do not fit. A target outside 0..V-1 that is not ignored
    makes its row NaN: raising would have to wait for the card.
    """
    return forward_train(*arrays, ignore_index=ignore_index)[0]


def forward_train(*arrays: Tensor, ignore_index: int | None = None) -> tuple[tuple[Tensor], tuple[Tensor]]:
    """`forward`, with the logarithms of the sums."""
    x, weight, targets = _checked(arrays)

    def run(way: Way) -> tuple[Tensor, Tensor]:
        tile = _tile(way, x, weight)
        row_blocks, class_blocks = blocks(len(x), tile["ROWS"]), blocks(len(weight), tile["CLASSES"])
        # The card has enough to do with the rows, or the classes are shared among programs too.
        wanted = blocks(4 * processors(x.device.index), max(row_blocks, 1))
        span = blocks(class_blocks, wanted) * tile["CLASSES"]
        parts = blocks(len(weight), span)
        sums, picked = (torch.empty(parts, len(x), dtype=torch.float32, device=x.device) for _ in range(2))
        launch(_forward, (row_blocks, parts), x, weight, targets, sums, picked, *_sizes(x, weight), span, **tile)
        return torch.logsumexp(sums, 0), picked.sum(0)

    log_sums, picked = run(_way("forward", x, weight, run))
    shape = arrays[2].shape
    nats = zero_if_ignored(log_sums - picked, targets, ignore_index)
    return (nats.view(shape),), (log_sums.view(shape),)


def backward(
    grads: tuple[Tensor],
    arrays: tuple[Tensor, ...],
    saved: tuple[Tensor],
    *,
    ignore_index: int | None = None,
) -> tuple[Tensor | None, ...]:
    """The gradient of nats -> those of x and weight."""
    x, weight, targets = _checked(arrays)
    log_sums, dnats = (a.detach().reshape(-1).contiguous() for a in (saved[0], grads[0]))
    dnats = zero_if_ignored(dnats, targets, ignore_index)

    def fill(chunk: slice, dlogits: Tensor) -> None:
        rows = x[chunk]

        def run(way: Way) -> None:
            tile = _tile(way, x, weight)
            grid = (blocks(len(rows), tile["ROWS"]), blocks(len(weight), tile["CLASSES"]))
            launch(
                _logit_gradients, grid, rows, weight, targets[chunk], log_sums[chunk], dnats[chunk], dlogits,
                *_sizes(rows, weight), **tile,
            )  # fmt: skip

        run(_way("backward", rows, weight, run))

    dx, dweight = gradients(x, weight, fill, CHUNK)
    return dx.view(arrays[0].shape), dweight.to(arrays[1].dtype), None


def _way(which: str, x: Tensor, weight: Tensor, run: Any) -> Way:
    shape_class = (size_class(len(x)), size_class(len(weight)), x.shape[1], x.dtype)
    return chosen(f"linear_cross_entropy {which}", shape_class, WAYS, run)


def _sizes(rows: Tensor, weight: Tensor) -> tuple[int, int, int]:
    return len(rows), weight.shape[0], weight.shape[1]


def _tile(way: Way, x: Tensor, weight: Tensor) -> dict[str, Any]:
    return {
        "ROWS": min(way["rows"], power(len(x), 16)),
        "CLASSES": min(way["classes"], power(weight.shape[0], 16)),
        "DEPTH": min(way["depth"], power(weight.shape[1], 16)),
        "PRECISION": precision(x, weight),
        "WIDEN": INTERPRETED,  # which multiplies no bfloat16
        "num_warps": way["warps"],
        "num_stages": way["stages"],
    }


def _checked(arrays: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, D), weight (V, D) in the dtype of x, targets (N,)."""
    x, weight, targets = arrays
    given = {"x": x, "weight": weight, "targets": targets}
    needed("linear_cross_entropy", given, tuple(given))
    shape, (V, D) = tuple(targets.shape), weight.shape
    check("linear_cross_entropy", {"x": (x, (*shape, D)), "weight": (weight, (V, D)), "targets": (targets, shape)})
    return dense(x).reshape(-1, D), dense(weight).to(x.dtype), class_numbers(targets).reshape(-1)
