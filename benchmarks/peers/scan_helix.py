"""The selective scan of the cpu backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core import create
from peers import inputs

ORDER = ("u", "delta", "A", "B", "C", "D")


def op(shape: list[int], backward: bool) -> Callable[[], Any]:
    """The op through the table; with its gradients, through autograd."""
    backend = create("backend", "cpu")
    import torch

    F = backend.bind(mode="train" if backward else "infer")
    arrays = {name: backend.asarray(a) for name, a in inputs.scan(*shape).items()}
    given = [arrays[name] for name in ORDER]
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return F.selective_scan(*given)[0]

        return forward
    leaves = [a.requires_grad_(True) for a in given]

    def train() -> Any:
        y, _ = F.selective_scan(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, arrays["dy"])]

    return train


def backward_kernel(shape: list[int]) -> Callable[[], Any]:
    """The backward kernel alone."""
    backend = create("backend", "cpu")
    from helix_plugin_cpu.kernels import selective_scan

    arrays = {name: backend.asarray(a) for name, a in inputs.scan(*shape).items()}
    given = [arrays[name] for name in ORDER]
    _, saved = selective_scan.forward_train(*given)
    return lambda: selective_scan.backward((arrays["dy"], None), tuple(given), saved)
