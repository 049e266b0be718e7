"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from helix_core.kinds.optimizer import Array, Optimizer, OptimizerConfig

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable


class SGDConfig(OptimizerConfig):
    """Options of SGD."""

    lr: float = Field(1e-1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False


class SGD(Optimizer[SGDConfig]):
    """Heavy-ball or Nesterov momentum: b <- μ b + g, p <- p - lr b (Nesterov: p <- p - lr (g + μ b)).

    Source: Sutskever, Martens, Dahl and Hinton, On the importance of initialization and momentum, 2013, in the form
    where the learning rate multiplies the step and not the momentum.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> optimizer = create("optimizer", "sgd", weight_decay=0.5)
    >>> params, grads = {"w": np.asarray([1.0, 2.0])}, {"w": np.asarray([0.1, -3.0])}
    >>> params, state = optimizer.update(F, params, grads, optimizer.init(F, params), lr=0.1, step=1)
    >>> params["w"].round(3).tolist(), sorted(state)
    ([0.94, 2.2], ['momentum'])
    """

    slots = ("momentum",)

    def step(
        self, F: OpTable, p: Array, g: Array, moments: tuple[Array, ...], *, lr: float, weight_decay: float, step: int
    ) -> tuple[Array, tuple[Array, ...]]:
        mu = self.config.momentum
        buffer = mu * moments[0] + g
        direction = g + mu * buffer if self.config.nesterov else buffer
        return p * (1 - lr * weight_decay) - lr * direction, (buffer,)
