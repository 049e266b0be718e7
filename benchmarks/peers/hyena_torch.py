"""The Hyena operator in plain torch, with the layout and the operations of the authors' code (safari): channels in
front of time, a grouped conv1d, the filter's network and spectrum computed in every call, torch.fft.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nn

from helix_core import create
from helix_core.kinds.params import init_params
from peers import inputs


def implicit_filter(p: dict[str, Tensor], z: Tensor, window: Tensor) -> Tensor:
    """z (1, L, E), window (1, L, D) -> (D, L)."""
    for i in range(3):
        z = torch.sin(p["filter.freq"] * nn.linear(z, p[f"filter.layers.{i}.weight"], p[f"filter.layers.{i}.bias"]))
    h = nn.linear(z, p["filter.out.weight"]) * torch.exp(window)
    return h[0].transpose(0, 1)


def operator(shape: list[int]) -> Callable[[], Any]:
    """Order 2, one head: the defaults."""
    B, L, D = shape
    values = init_params(create("layer", "hyena", d_model=D, l_max=L).param_specs(), 0)
    p = {name: torch.from_numpy(a) for name, a in values.items()}
    x = torch.from_numpy(inputs.features(B, L, D))
    time = torch.linspace(0, 1, L)[None, :, None]
    phase = 1e-4 * 2 * math.pi / L * torch.arange(L)[None, :, None]
    z = torch.cat([time, torch.cos(phase), -torch.sin(phase)], -1)
    exponent = time * torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, D)[None, None]

    def forward() -> Any:
        with torch.no_grad():
            u = nn.linear(x, p["in_proj.weight"], p["in_proj.bias"]).transpose(1, 2)
            weight = p["short_filter.weight"][:, None]
            u = nn.conv1d(u, weight, p["short_filter.bias"], padding=2, groups=3 * D)[..., :L]
            gate, inner, v = u.split(D, dim=1)
            k = implicit_filter(p, z, exponent)
            v = v * inner
            spectrum = torch.fft.rfft(k, n=2 * L) / (2 * L)
            y = torch.fft.irfft(torch.fft.rfft(v, n=2 * L) * spectrum, n=2 * L, norm="forward")[..., :L]
            y = (y + v * p["filter.bias"][:, None]) * gate
            return nn.linear(y.transpose(1, 2), p["out_proj.weight"], p["out_proj.bias"])

    return forward
