"""The selective scan in torch: an eager loop, a loop over a compiled step, and mambapy's parallel scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peers import inputs
from side_by_side.row import NotHere

ORDER = ("u", "delta", "A", "B", "C", "D")
Scan = Callable[..., Tensor]


def step(h: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """h (B, D, N) and one step of the inputs -> the next h, y (B, D)."""
    h = torch.exp(delta[:, :, None] * A) * h + (delta * u)[:, :, None] * B[:, None, :]
    return h, (h * C[:, None, :]).sum(-1)


def looped(step: Callable[..., tuple[Tensor, Tensor]]) -> Scan:
    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        h, ys = u.new_zeros(u.shape[0], u.shape[2], A.shape[1]), []
        for args in zip(u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True):
            h, y = step(h, args[0], args[1], A, args[2], args[3])
            ys.append(y)
        return torch.stack(ys, 1) + D * u

    return scan


def mambapy_scan() -> Scan:
    try:
        from mambapy.pscan import pscan
    except ImportError as error:
        raise NotHere("mambapy is not installed") from error

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        decay = torch.exp(delta[..., None] * A)
        h = pscan(decay, (delta * u)[..., None] * B[:, :, None, :])
        return (h @ C[..., None]).squeeze(3) + D * u

    return scan


def op(shape: list[int], backward: bool, how: str) -> Callable[[], Any]:
    """how: loop, compiled or mambapy."""
    if how == "mambapy":
        scan = mambapy_scan()
    else:
        scan = looped(torch.compile(step, dynamic=False) if how == "compiled" else step)
    arrays = {name: torch.from_numpy(a) for name, a in inputs.scan(*shape).items()}
    given = [arrays[name] for name in ORDER]
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return scan(*given)

        return forward
    leaves = [a.requires_grad_(True) for a in given]

    def train() -> Any:
        y = scan(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, arrays["dy"])]

    return train
