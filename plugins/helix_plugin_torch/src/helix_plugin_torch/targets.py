"""Targets of the losses for kernels: which rows count, and what the others give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from helix_core.ops.indices import out_of_range


@dataclass(frozen=True)
class Rows:
    """Targets int64 within the classes, 0 for rows that do not count, and masks of the latter; None for no row.

    A row whose target is ignored has the loss 0, one whose target is outside has NaN; neither has a gradient.
    """

    targets: Tensor
    ignored: Tensor | None
    outside: Tensor | None

    def nats(self, nats: Tensor) -> Tensor:
        """The losses (...), all computed as if every row counted, as they are to be."""
        if self.ignored is not None:
            nats = nats.masked_fill(self.ignored, 0.0)
        return nats if self.outside is None else nats.masked_fill(self.outside, float("nan"))

    def counted(self, weights: Tensor) -> Tensor:
        """Weights of rows (...), 0 for those that do not count."""
        for mask in (self.ignored, self.outside):
            weights = weights if mask is None else weights.masked_fill(mask, 0.0)
        return weights


def rows_of(what: str, targets: Tensor, classes: int, ignore_index: int | None) -> Rows:
    """The rows of targets (...). In main memory, IndexOutOfRange for a target outside: elsewhere it would be a wait."""
    targets = targets.detach().to(torch.int64)
    ignored = None if ignore_index is None else targets == ignore_index
    if not targets.is_cpu:
        outside = (targets < 0) | (targets >= classes)
        if ignored is not None:
            outside = outside & ~ignored
            return Rows(targets.masked_fill(ignored | outside, 0), ignored, outside)
        return Rows(targets.masked_fill(outside, 0), None, outside)
    if ignored is not None:
        targets = targets.masked_fill(ignored, 0)
    if targets.numel() and classes:
        least, most = (int(n) for n in torch.aminmax(targets))
        if least < 0 or most >= classes:
            raise out_of_range(what, least, most, classes)
    return Rows(targets.contiguous(), ignored, None)
