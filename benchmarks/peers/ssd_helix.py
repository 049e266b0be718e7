"""Mamba-2's op and gated linear attention on the cpu backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core import create
from peers import inputs


def op(name: str, shape: list[int], backward: bool) -> Callable[[], Any]:
    """name: ssd or gated_linear_attention. Through the table; with its gradients, through autograd."""
    backend = create("backend", "cpu")
    import torch

    F = backend.bind(mode="train" if backward else "infer")
    arrays = {k: backend.asarray(a) for k, a in getattr(inputs, name)(*shape).items()}
    dy = arrays.pop("dy")
    given, function = list(arrays.values()), getattr(F, name)
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return function(*given)[0]

        return forward
    leaves = [a.requires_grad_(True) for a in given]

    def train() -> Any:
        y, _ = function(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    return train


def step(shape: list[int]) -> Callable[[], Any]:
    """One token of ssd with a state."""
    backend = create("backend", "cpu")
    import torch

    F = backend.bind(mode="infer")
    given = [backend.asarray(a) for a in inputs.ssd_step(*shape).values()]

    def run() -> Any:
        with torch.no_grad():
            return F.ssd(*given[:6], None, given[6])

    return run
