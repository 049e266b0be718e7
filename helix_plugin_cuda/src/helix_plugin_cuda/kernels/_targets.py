"""What the two losses share: class numbers as targets, rows that are ignored, and one number a row for the backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_plugin_torch.arguments import Shape


def class_numbers(targets: Tensor) -> Tensor:
    """Targets as the kernels load them: int64, contiguous."""
    return targets.detach().to(torch.int64).contiguous()


def zero_if_ignored(values: Tensor, targets: Tensor, ignore_index: int | None) -> Tensor:
    """Values of rows, 0 where the target is `ignore_index`."""
    return values if ignore_index is None else values.masked_fill(targets == ignore_index, 0.0)


def residuals(*shapes: Shape, **attrs: Any) -> tuple[Shape, ...]:
    """The logarithm of each row's sum of exponentials; the last of `shapes` is that of the targets."""
    return (tuple(shapes[-1]),)
