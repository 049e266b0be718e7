"""Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from helix_core.kinds.optimizer import Array, Optimizer, OptimizerConfig

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable


class LionConfig(OptimizerConfig):
    """Options of Lion; its learning rate is typically 3-10x smaller than AdamW's."""

    lr: float = Field(1e-4, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    weight_decay: float = Field(0.1, ge=0)


class Lion(Optimizer[LionConfig]):
    """Evolved sign momentum: p <- p - lr sign(β1 m + (1 - β1) g), then m <- β2 m + (1 - β2) g.

    Source: Chen et al., Symbolic Discovery of Optimization Algorithms, 2023.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> optimizer = create("optimizer", "lion", weight_decay=0.5)
    >>> params, grads = {"w": np.asarray([1.0, 2.0])}, {"w": np.asarray([0.1, -3.0])}
    >>> params, state = optimizer.update(F, params, grads, optimizer.init(F, params), lr=0.1, step=1)
    >>> params["w"].round(3).tolist(), sorted(state)
    ([0.85, 2.0], ['m'])
    """

    slots = ("m",)

    def step(
        self, F: OpTable, p: Array, g: Array, moments: tuple[Array, ...], *, lr: float, weight_decay: float, step: int
    ) -> tuple[Array, tuple[Array, ...]]:
        c = self.config
        (m,) = moments
        direction = F.xp.sign(c.beta1 * m + (1 - c.beta1) * g)
        return p * (1 - lr * weight_decay) - lr * direction, (c.beta2 * m + (1 - c.beta2) * g,)
