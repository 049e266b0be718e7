"""A language model's head and loss: nats of every row, and with a gradient of them those of x and weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from peers import inputs


def arrays(rows: int, width: int, classes: int) -> tuple[np.ndarray, ...]:
    """x (N, D), weight (V, D), targets (N,)."""
    r = inputs.rng("head", rows, width, classes)
    x, weight = r.normal(size=(rows, width)), r.normal(size=(classes, width)) * width**-0.5
    return x.astype(np.float32), weight.astype(np.float32), r.integers(classes, size=rows)


def work(shape: list[int], how: str) -> Callable[[], Any]:
    """how: the op `linear_cross_entropy` ("ours"), the ops `linear` and `cross_entropy` ("two ops"), or "torch"."""
    if how != "torch":
        from helix_core import create

        F = create("backend", "cpu").bind(mode="train")
    import torch

    x, weight, targets = (torch.from_numpy(a) for a in arrays(*shape))
    leaves = [x.requires_grad_(), weight.requires_grad_()]

    def nats() -> Any:
        if how == "ours":
            return F.linear_cross_entropy(x, weight, targets)
        if how == "two ops":
            return F.cross_entropy(F.linear(x, weight), targets)
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, weight), targets, reduction="none")

    def train() -> Any:
        loss = nats().mean()
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    return train
