"""AdamW."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from helix_core.kinds.optimizer import Array, Optimizer, OptimizerConfig

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable


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
        self, F: OpTable, p: Array, g: Array, moments: tuple[Array, ...], *, lr: float, decay: float, step: int
    ) -> tuple[Array, tuple[Array, ...]]:
        c = self.config
        p, m, v = F.adamw(p, g, *moments, lr=lr, beta1=c.beta1, beta2=c.beta2, eps=c.eps, weight_decay=decay, step=step)
        return p, (m, v)
