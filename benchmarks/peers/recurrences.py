"""linear_scan and diagonal_ssm: the cpu backend's, and the plain loop over steps in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from peers import inputs

Op = Callable[..., Any]


def run(op: Op, arrays: dict[str, Any], backward: bool) -> Callable[[], Any]:
    """The op's first output; with gradients of all inputs but the last, which is the gradient of y."""
    *given, dy = (torch.from_numpy(a) for a in arrays.values())
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return op(*given)

        return forward
    leaves = [a.requires_grad_(True) for a in given]

    def train() -> Any:
        y = op(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    return train


def linear_inputs(B: int, L: int, D: int) -> dict[str, Any]:
    r = inputs.rng("linear_scan", B, L, D)
    draw = {"a": r.uniform(0, 1, (B, L, D)), "x": r.normal(size=(B, L, D)), "dy": r.normal(size=(B, L, D))}
    return {name: a.astype("float32") for name, a in draw.items()}


def modes_inputs(B: int, L: int, D: int, N: int) -> dict[str, Any]:
    import numpy as np

    r = inputs.rng("diagonal_ssm", B, L, D, N)
    draw = {
        "u": r.normal(size=(B, L, D)),
        "log_a": np.stack([-r.uniform(0.01, 1, (D, N)), r.uniform(0, 3, (D, N))], -1),
        "c": r.normal(size=(D, N, 2)),
        "dy": r.normal(size=(B, L, D)),
    }
    return {name: a.astype("float32") for name, a in draw.items()}


def helix(name: str, backward: bool) -> Op:
    from helix_core import create

    op = getattr(create("backend", "cpu").bind(mode="train" if backward else "infer"), name)
    return lambda *arrays: op(*arrays)[0]


def linear_helix(shape: list[int], backward: bool) -> Callable[[], Any]:
    return run(helix("linear_scan", backward), linear_inputs(*shape), backward)


def modes_helix(shape: list[int], backward: bool) -> Callable[[], Any]:
    return run(helix("diagonal_ssm", backward), modes_inputs(*shape), backward)


def linear_loop(shape: list[int], backward: bool) -> Callable[[], Any]:
    def loop(a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h, steps = torch.zeros_like(x[:, 0]), []
        for a_t, x_t in zip(a.unbind(1), x.unbind(1), strict=True):
            h = a_t * h + x_t
            steps.append(h)
        return torch.stack(steps, 1)

    return run(loop, linear_inputs(*shape), backward)


def modes_loop(shape: list[int], backward: bool) -> Callable[[], Any]:
    def loop(u: torch.Tensor, log_a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        a, weight = torch.exp(torch.view_as_complex(log_a)), torch.view_as_complex(c)
        h, steps = torch.zeros((u.shape[0], *a.shape), dtype=a.dtype), []
        for u_t in u.unbind(1):
            h = a * h + u_t[..., None]
            steps.append(2 * (weight * h).real.sum(-1))
        return torch.stack(steps, 1)

    return run(loop, modes_inputs(*shape), backward)
