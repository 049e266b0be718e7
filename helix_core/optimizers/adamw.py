"""AdamW."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from helix_core.optimizers.base import Array, Optimizer, OptimizerConfig


class AdamWConfig(OptimizerConfig):
    """Options of AdamW."""

    lr: float = Field(1e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0)


class AdamW(Optimizer[AdamWConfig]):
    """Adam with decoupled weight decay: p <- p - lr m̂ / (sqrt(v̂) + eps).

    m <- β1 m + (1 - β1) g, v <- β2 v + (1 - β2) g², both divided by 1 - βᵗ.
    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019.
    """

    slots = ("m", "v")

    def step(
        self, xp: Any, p: Array, g: Array, moments: tuple[Array, ...], *, lr: float, step: int
    ) -> tuple[Array, tuple[Array, ...]]:
        c = self.config
        m = c.beta1 * moments[0] + (1 - c.beta1) * g
        v = c.beta2 * moments[1] + (1 - c.beta2) * (g * g)
        unbias1, unbias2 = 1 - c.beta1**step, 1 - c.beta2**step
        return p - (lr / unbias1) * m / (xp.sqrt(v) / math.sqrt(unbias2) + c.eps), (m, v)
