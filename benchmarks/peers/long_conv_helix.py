"""The long convolution of the cpu backend, from channel-last arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core import create
from peers import inputs


def op(shape: list[int], what: str) -> Callable[[], Any]:
    """what: cached (the filter is the same in every call), fresh (its spectrum is computed anew) or train."""
    backend = create("backend", "cpu")
    import torch

    F = backend.bind(mode="train" if what == "train" else "infer")
    u, filter = (backend.asarray(a) for a in inputs.long_conv(*shape).values())
    if what == "train":
        leaves = [u.requires_grad_(True), filter.requires_grad_(True)]

        def train() -> Any:
            filter.detach().mul_(1.0)  # as an optimiser would
            y = F.long_conv(*leaves)
            return [y.detach(), *torch.autograd.grad(y, leaves, leaves[0].detach())]

        return train

    def forward() -> Any:
        with torch.no_grad():
            if what == "fresh":
                filter.mul_(1.0)
            return F.long_conv(u, filter)

    return forward
