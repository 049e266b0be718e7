"""The same model's step in plain torch, an operation at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nn

from peers import decode_helix


class Stepper:
    def __init__(self, batch: int) -> None:
        self.p = {name: torch.from_numpy(a) for name, a in decode_helix.model().init(0).items()}
        self.batch = batch
        self.reset()

    def reset(self) -> None:
        E = 2 * decode_helix.D_MODEL
        self.conv = [torch.zeros(self.batch, E, 4) for _ in range(decode_helix.LAYERS)]
        self.ssm = [torch.zeros(self.batch, E, 16) for _ in range(decode_helix.LAYERS)]

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight = self.p[name]
        return nn.rms_norm(x, weight.shape, weight, 1e-5)

    @torch.no_grad()
    def step(self, tokens: np.ndarray) -> Tensor:
        p = self.p
        x = p["embedding.weight"][torch.from_numpy(tokens)]
        for i in range(decode_helix.LAYERS):
            w = {k: p[f"blocks.{i}.mixer.{k}"] for k in ("D", "A_log", "conv1d.weight", "conv1d.bias", "dt_proj.bias")}
            u, z = (self.norm(x, f"blocks.{i}.mixer_norm.weight") @ p[f"blocks.{i}.mixer.in_proj.weight"].T).chunk(2, 1)
            conv = self.conv[i] = torch.cat([self.conv[i][:, :, 1:], u[:, :, None]], dim=2)
            u = nn.silu((conv * w["conv1d.weight"]).sum(2) + w["conv1d.bias"])
            dt, B, C = (u @ p[f"blocks.{i}.mixer.x_proj.weight"].T).split([48, 16, 16], 1)
            dt = nn.softplus(dt @ p[f"blocks.{i}.mixer.dt_proj.weight"].T + w["dt_proj.bias"])
            decay = torch.exp(dt[:, :, None] * -torch.exp(w["A_log"]))
            self.ssm[i] = decay * self.ssm[i] + (dt * u)[:, :, None] * B[:, None]
            y = (self.ssm[i] * C[:, None]).sum(2) + w["D"] * u
            x = x + (y * nn.silu(z)) @ p[f"blocks.{i}.mixer.out_proj.weight"].T
        return self.norm(x, "norm.weight") @ p["embedding.weight"].T


def decode(batch: int, tokens: int) -> Callable[[], Any]:
    stepper, fed = Stepper(batch), decode_helix.tokens(tokens, batch)

    def run() -> Tensor:
        stepper.reset()
        return [stepper.step(row) for row in fed][-1]

    return run


def latency() -> Callable[[], float]:
    return decode_helix.p95(Stepper(1).step)
