"""The loss of a head with the logits of one chunk of rows at a time.

A chunk's logits are turned into their gradient and into its products while they are there, all rows weighed alike, as
they are in a mean: three products in all, as many as with whole logits. Rows that turn out to be weighed differently
are gone over again. An operator of its own for torch, so that no compiler keeps what is dropped here.

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
from helix_plugin_torch.library import as_torch_function
from helix_plugin_torch.targets import Rows, rows_of

Shape = tuple[int, ...]
NEVER = -(2**63)
"""A target that there is not: torch ignores -100 unless told otherwise."""
Losses = Callable[[Tensor, Tensor], Tensor]
"""logits (R, V), targets (R,) -> nats (R,)."""
Slopes = Callable[[Tensor, Tensor, Tensor], Tensor]
"""As `Losses`, with the gradient of nats (R,): turns the logits into their gradient, in place."""


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether all logits of x (..., D) should be there at once."""
    rows = math.prod(x.shape[:-1])
    return rows_at_once(rows, x.shape[-1], weight.shape[0]) >= rows


def mm(left: Tensor, right: Tensor, out: Tensor) -> None:
    """out (R, N) = left (R, K) right (K, N)."""
    torch.mm(left, right, out=out)


def add_over_rows(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total (N, K), as wide as the factors or wider, += the transpose of left (R, N) times right (R, K)."""
    if total.dtype == left.dtype:
        total.addmm_(left.mT, right)
    else:
        total += left.mT @ right


def chunked(
    losses: Losses,
    slopes: Slopes,
    *,
    mm: Callable[[Tensor, Tensor, Tensor], None] = mm,
    add_over_rows: Callable[[Tensor, Tensor, Tensor], None] = add_over_rows,
) -> Kernel:
    """The kernel of `linear_cross_entropy` that goes over the rows in chunks, with the products given."""

    def forward(*arrays: Tensor | None, ignore_index: int | None = None) -> tuple[Tensor]:
        x, weight, taken = _flat(arrays, ignore_index)
        nats = torch.empty(taken.targets.shape, dtype=_wide(x), device=x.device)
        for part, logits in _chunks(x, weight):
            mm(x[part], weight.mT, logits)
            nats[part] = losses(logits, taken.targets[part])
        return (taken.nats(nats).view(arrays[2].shape),)  # type: ignore[union-attr]

    def weighed(x: Tensor, weight: Tensor, targets: Tensor, dnats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nats = torch.empty(targets.shape, dtype=_wide(x), device=x.device)

        def fill(part: slice, logits: Tensor) -> None:
            mm(x[part], weight.mT, logits)
            nats[part] = slopes(logits, targets[part], dnats[part])

        return nats, *gradients(x, weight, fill, mm=mm, add_over_rows=add_over_rows)

    def forward_train(
        *arrays: Tensor | None, ignore_index: int | None = None
    ) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
        x, weight, taken = _flat(arrays, ignore_index)
        alike = taken.counted(torch.ones(taken.targets.shape, dtype=_wide(x), device=x.device))
        nats, dx, dweight = weighed(x, weight, taken.targets, alike)
        return (taken.nats(nats).view(arrays[2].shape),), (dx.to(nats.dtype).view(arrays[0].shape), dweight)  # type: ignore[union-attr]

    def backward(
        grads: tuple[Tensor | None, ...],
        arrays: tuple[Tensor | None, ...],
        saved: tuple[Tensor, ...],
        *,
        ignore_index: int | None = None,
    ) -> tuple[Tensor | None, ...]:
        x, weight, taken = _flat(arrays, ignore_index)
        dnats = grads[0].detach().reshape(-1).contiguous()  # type: ignore[union-attr]
        if dnats.numel() and bool((dnats == dnats[0]).all()):  # the rows that do not count are no part of `saved`
            dx, dweight = (dnats[0] * a for a in saved)
        else:
            _, dx, dweight = weighed(x, weight, taken.targets, taken.counted(dnats))
        x, weight, _ = arrays
        return dx.view(x.shape).to(x.dtype), dweight.to(weight.dtype), None  # type: ignore[union-attr]

    def residuals(x: Shape, weight: Shape, targets: Shape, **attrs: Any) -> tuple[Shape, ...]:
        return tuple(x), tuple(weight)

    return Kernel(forward, forward_train, backward, residuals)


def gradients(
    x: Tensor,
    weight: Tensor,
    fill: Callable[[slice, Tensor], Any],
    chunk: int | None = None,
    *,
    mm: Callable[[Tensor, Tensor, Tensor], None] = mm,
    add_over_rows: Callable[[Tensor, Tensor, Tensor], None] = add_over_rows,
) -> tuple[Tensor, Tensor]:
    """Those of x (N, D), in its dtype, and weight (V, D), float32 or wider.

    `fill(rows, slopes)` writes the gradient of the logits of a chunk of rows, in the dtype of x.
    """
    dx = torch.empty_like(x)
    dweight = torch.zeros_like(weight, dtype=_wide(x))
    for part, slopes in _chunks(x, weight, chunk):
        fill(part, slopes)
        mm(slopes, weight, dx[part])
        add_over_rows(dweight, slopes, x[part])
    return dx, dweight


def _chunks(x: Tensor, weight: Tensor, chunk: int | None = None) -> list[tuple[slice, Tensor]]:
    """Chunks of rows, and room for the logits of each: the same for all."""
    (rows, width), classes = x.shape, weight.shape[0]
    size = max(1, min(rows, rows_at_once(rows, width, classes, chunk)))
    room = x.new_empty(size, classes)
    return [(slice(start, start + size), room[: rows - start]) for start in range(0, rows, size)]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _flat(arrays: tuple[Tensor | None, ...], ignore_index: int | None) -> tuple[Tensor, Tensor, Rows]:
    """x (N, D), weight (V, D) in the dtype of x, the rows of targets (N,). Raises ValueError if they do not fit."""
    x, weight, targets = arrays
    if x is None or weight is None or targets is None:
        raise ValueError("linear_cross_entropy: x, weight and targets are needed")
    if x.shape[:-1] != targets.shape or weight.shape[1:] != x.shape[-1:]:
        raise ValueError(
            f"linear_cross_entropy: x {tuple(x.shape)}, weight {tuple(weight.shape)} and targets "
            f"{tuple(targets.shape)} do not fit (..., D), (V, D) and (...)"
        )
    flat = x.detach().reshape(targets.numel(), x.shape[-1]).contiguous()
    taken = rows_of("linear_cross_entropy: targets", targets.reshape(-1), weight.shape[0], ignore_index)
    return flat, weight.detach().to(x.dtype).contiguous(), taken


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.cross_entropy(logits.to(_wide(logits)), targets, reduction="none")


def _slopes(logits: Tensor, targets: Tensor, dnats: Tensor) -> Tensor:
    p = torch.log_softmax(logits, -1, dtype=_wide(logits))
    nats = nn.nll_loss(p, targets, reduction="none")
    p.exp_().scatter_add_(-1, targets[:, None], p.new_full((len(p), 1), -1.0))
    logits.copy_(p.mul_(dnats[:, None]))
    return nats


_in_chunks = as_torch_function(OPS["linear_cross_entropy"], chunked(_losses, _slopes), "torch_linear_cross_entropy")


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """x (..., D), weight (V, D), targets (...) -> nats (...), float32 or wider."""
    if not fits(x, weight):
        nats: Tensor = _in_chunks(x, weight, targets, ignore_index=ignore_index)
        return nats
    logits = nn.linear(x, weight.to(x.dtype))
    return cross_entropy(logits.to(_wide(logits)), targets, ignore_index=ignore_index)


def cross_entropy(logits: Tensor, targets: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """logits (..., V), targets (...) -> nats (...)."""

    def nats(targets: Tensor, ignore_index: int = NEVER) -> Tensor:
        flat = logits.reshape(-1, logits.shape[-1])
        found = nn.cross_entropy(flat, targets.reshape(-1).long(), reduction="none", ignore_index=ignore_index)
        return found.reshape(targets.shape)

    if logits.is_cpu and not torch.compiler.is_compiling():
        return nats(targets, NEVER if ignore_index is None else ignore_index)
    # A graphics card would stop the process at a target outside, and compiled code might read at a negative one.
    return at_targets(xp, "cross_entropy: targets", nats, targets, logits.shape[-1], ignore_index)
