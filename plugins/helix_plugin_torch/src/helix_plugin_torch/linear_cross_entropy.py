"""The loss of a head with the logits of one chunk of rows at a time.

The forward pass turns each chunk's logits into their gradient and multiplies by it while they are in memory, with the
same weight for all rows, as in a mean: three products in all, as many as with whole logits. Where the backward pass
finds that rows have different weights, it computes them again. One operator for torch, so that no compiler keeps the
logits.

    N, R  rows: all, and those of a chunk; (...) before they are flattened
    D     channels
    V     classes, the vocabulary
    nats  the losses, one a row

Source: Hsu et al., Liger Kernel: Efficient Triton Kernels for LLM Training, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nn

from helix_core.kinds.kernel import Kernel
from helix_core.ops import OPS
from helix_core.ops.indices import at_targets
from helix_core.ops.linear_cross_entropy import rows_at_once
from helix_plugin_torch import namespace as xp
from helix_plugin_torch.dtypes import wide
from helix_plugin_torch.library import as_torch_function
from helix_plugin_torch.targets import Rows, rows_of

Shape = tuple[int, ...]
NO_TARGET = -(2**63)
"""For torch, which ignores -100 unless told otherwise: no target is this one."""
Losses = Callable[[Tensor, Tensor], Tensor]
"""logits (R, V), targets (R,) -> nats (R,)."""
LossesAndGradients = Callable[[Tensor, Tensor, Tensor], Tensor]
"""As `Losses`, with the gradient of nats (R,): turns the logits into their gradient, in place."""
Product = Callable[[Tensor, Tensor, Tensor], None]
"""`mm` or `add_over_rows`, or what a backend has in their place."""


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether all logits of x (..., D) should be in memory at once."""
    rows = math.prod(x.shape[:-1])
    return rows_at_once(rows, x.shape[-1], weight.shape[0]) >= rows


def mm(left: Tensor, right: Tensor, out: Tensor) -> None:
    """out (M, N) = left (M, K) right (K, N)."""
    torch.mm(left, right, out=out)


def add_over_rows(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total (M, K), as wide as the factors or wider, += the transpose of left (R, M) times right (R, K)."""
    if total.dtype == left.dtype:
        total.addmm_(left.mT, right)
    else:
        total += left.mT @ right


def chunked(
    losses: Losses,
    losses_and_gradients: LossesAndGradients,
    *,
    mm: Product = mm,
    add_over_rows: Product = add_over_rows,
) -> Kernel:
    """The kernel of `linear_cross_entropy` that goes over the rows in chunks, with the products given.

    Its residuals are the gradients of x and weight for rows that all weigh 1.
    """

    def forward(x: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int | None = None) -> tuple[Tensor]:
        flat, weight, rows = _checked(x, weight, targets, ignore_index)
        nats = flat.new_empty(len(flat), dtype=wide(flat))
        for chunk, logits in _chunks(flat, weight):
            mm(flat[chunk], weight.mT, logits)
            nats[chunk] = losses(logits, rows.targets[chunk])
        return (rows.nats(nats).view(targets.shape),)

    def with_gradients(
        x: Tensor, weight: Tensor, targets: Tensor, dnats: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        nats = x.new_empty(len(x), dtype=wide(x))

        def fill(chunk: slice, logits: Tensor) -> None:
            mm(x[chunk], weight.mT, logits)
            nats[chunk] = losses_and_gradients(logits, targets[chunk], dnats[chunk])

        return nats, gradients(x, weight, fill, mm=mm, add_over_rows=add_over_rows)

    def forward_train(
        x: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int | None = None
    ) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
        flat, weight, rows = _checked(x, weight, targets, ignore_index)
        dnats = rows.counted(flat.new_ones(len(flat), dtype=wide(flat)))
        nats, (dx, dweight) = with_gradients(flat, weight, rows.targets, dnats)
        return (rows.nats(nats).view(targets.shape),), (dx.to(nats.dtype).view(x.shape), dweight)

    def backward(
        grads: tuple[Tensor],
        arrays: tuple[Tensor, Tensor, Tensor],
        residuals: tuple[Tensor, Tensor],
        *,
        ignore_index: int | None = None,
    ) -> tuple[Tensor | None, ...]:
        x, weight, targets = arrays
        dnats = grads[0].detach().reshape(-1).contiguous()
        if dnats.numel() and bool((dnats == dnats[0]).all()):  # ignored rows are no part of the residuals
            dx, dweight = (dnats[0] * gradient for gradient in residuals)
        else:
            flat, dense_weight, rows = _checked(x, weight, targets, ignore_index)
            _, (dx, dweight) = with_gradients(flat, dense_weight, rows.targets, rows.counted(dnats))
        return dx.view(x.shape).to(x.dtype), dweight.to(weight.dtype), None

    def residuals(x: Shape, weight: Shape, targets: Shape, **attrs: Any) -> tuple[Shape, ...]:
        return tuple(x), tuple(weight)

    return Kernel(forward, forward_train, backward, residuals)


def gradients(
    x: Tensor,
    weight: Tensor,
    fill: Callable[[slice, Tensor], Any],
    chunk: int | None = None,
    *,
    mm: Product = mm,
    add_over_rows: Product = add_over_rows,
) -> tuple[Tensor, Tensor]:
    """Gradients of x (N, D), in its dtype, and weight (V, D), float32 or wider.

    `fill(rows, dlogits)` writes the gradient of the logits of a chunk of rows, in the dtype of x; `chunk` is how many
    logits that should be.
    """
    dx = torch.empty_like(x)
    dweight = torch.zeros_like(weight, dtype=wide(x))
    for rows, dlogits in _chunks(x, weight, chunk):
        fill(rows, dlogits)
        mm(dlogits, weight, dx[rows])
        add_over_rows(dweight, dlogits, x[rows])
    return dx, dweight


def _chunks(x: Tensor, weight: Tensor, chunk: int | None = None) -> list[tuple[slice, Tensor]]:
    """Chunks of rows, each with memory for its logits, which is the same for all."""
    (rows, width), classes = x.shape, weight.shape[0]
    size = max(1, min(rows, rows_at_once(rows, width, classes, chunk)))
    logits = x.new_empty(size, classes)
    return [(slice(start, start + size), logits[: rows - start]) for start in range(0, rows, size)]


def _checked(x: Tensor, weight: Tensor, targets: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor, Rows]:
    """x (N, D), weight (V, D) in the dtype of x, the rows of targets (N,). Raises ValueError if they do not fit."""
    if x.shape[:-1] != targets.shape or weight.shape[1:] != x.shape[-1:]:
        raise ValueError(
            f"linear_cross_entropy: x {tuple(x.shape)}, weight {tuple(weight.shape)} and targets "
            f"{tuple(targets.shape)} do not fit (..., D), (V, D) and (...)"
        )
    flat = x.detach().reshape(targets.numel(), x.shape[-1]).contiguous()
    rows = rows_of("linear_cross_entropy: targets", targets.reshape(-1), weight.shape[0], ignore_index)
    return flat, weight.detach().to(x.dtype).contiguous(), rows


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.cross_entropy(logits.to(wide(logits)), targets, reduction="none")


def _losses_and_gradients(logits: Tensor, targets: Tensor, dnats: Tensor) -> Tensor:
    p = torch.log_softmax(logits, -1, dtype=wide(logits))
    nats = nn.nll_loss(p, targets, reduction="none")
    p.exp_().scatter_add_(-1, targets[:, None], p.new_full((len(p), 1), -1.0))
    logits.copy_(p.mul_(dnats[:, None]))
    return nats


_in_chunks = as_torch_function(
    OPS["linear_cross_entropy"], chunked(_losses, _losses_and_gradients), "torch_linear_cross_entropy"
)


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """x (..., D), weight (V, D), targets (...) -> nats (...), float32 or wider."""
    if not fits(x, weight):
        nats: Tensor = _in_chunks(x, weight, targets, ignore_index=ignore_index)
        return nats
    logits = nn.linear(x, weight.to(x.dtype))
    return cross_entropy(logits.to(wide(logits)), targets, ignore_index=ignore_index)


def cross_entropy(logits: Tensor, targets: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """logits (..., V), targets (...) -> nats (...)."""

    def losses(targets: Tensor, ignore_index: int = NO_TARGET) -> Tensor:
        flat = logits.reshape(-1, logits.shape[-1])
        nats = nn.cross_entropy(flat, targets.reshape(-1).long(), reduction="none", ignore_index=ignore_index)
        return nats.reshape(targets.shape)

    if logits.is_cpu and not torch.compiler.is_compiling():
        return losses(targets, NO_TARGET if ignore_index is None else ignore_index)
    # A graphics card would stop the process at a target outside, and compiled code might read at a negative one.
    nats: Tensor = at_targets(xp, "cross_entropy: targets", losses, targets, logits.shape[-1], ignore_index)
    return nats
