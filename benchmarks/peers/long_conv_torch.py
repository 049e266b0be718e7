"""The long convolution by torch.fft, which is MKL here: what Hyena's and S4's published code runs on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peers import inputs


def convolve(u: Tensor, spectrum: Tensor) -> Tensor:
    """u (B, D, L), spectrum (D, L + 1) -> (B, D, L)."""
    length = u.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u, n=2 * length) * spectrum, n=2 * length)[..., :length]


def op(shape: list[int], what: str, layout: str) -> Callable[[], Any]:
    """layout: "same", in which torch gets the (B, D, L) that suits it, or "last", channels last as models have it."""
    u, filter = (torch.from_numpy(a) for a in inputs.long_conv(*shape).values())
    length = u.shape[1]
    if layout == "same":
        u, filter = u.transpose(1, 2).contiguous(), filter.transpose(0, 1).contiguous()
    spectrum = torch.fft.rfft(filter if layout == "same" else filter.transpose(0, 1).contiguous(), n=2 * length)

    def run(u: Tensor, filter: Tensor) -> Tensor:
        if layout == "same":
            return convolve(u, spectrum if what == "cached" else torch.fft.rfft(filter, n=2 * length))
        found = spectrum if what == "cached" else torch.fft.rfft(filter.transpose(0, 1).contiguous(), n=2 * length)
        return convolve(u.transpose(1, 2).contiguous(), found).transpose(1, 2).contiguous()

    def back(array: Tensor) -> Tensor:
        return array.transpose(-1, -2) if layout == "same" else array

    if what != "train":

        def forward() -> Any:
            with torch.no_grad():
                return back(run(u, filter))

        return forward
    leaves = [u.requires_grad_(True), filter.requires_grad_(True)]

    def train() -> Any:
        y = run(*leaves)
        return [back(a) for a in (y.detach(), *torch.autograd.grad(y, leaves, u.detach()))]

    return train
