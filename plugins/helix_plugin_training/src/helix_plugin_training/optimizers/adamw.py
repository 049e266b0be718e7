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
    """Adam with decoupled weight decay: the op `adamw` on every parameter, with its moments m and v as slots.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019. The op's docstring has the formula.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> optimizer = create("optimizer", "adamw", weight_decay=0.5)
    >>> params, grads = {"w": np.asarray([1.0, 2.0])}, {"w": np.asarray([0.1, -3.0])}
    >>> params, state = optimizer.update(F, params, grads, optimizer.init(F, params), lr=0.1, step=1)
    >>> params["w"].round(3).tolist(), sorted(state)
    ([0.85, 2.0], ['m', 'v'])
    """

    slots = ("m", "v")

    def step(
        self, F: OpTable, p: Array, g: Array, moments: tuple[Array, ...], *, lr: float, weight_decay: float, step: int
    ) -> tuple[Array, tuple[Array, ...]]:
        return self._step(F, p, g, moments, lr=lr, weight_decay=weight_decay, step=step, donate=False)

    def step_donated(
        self,
        F: OpTable,
        name: str,
        p: Array,
        g: Array,
        moments: tuple[Array, ...],
        *,
        lr: float,
        weight_decay: float,
        step: int,
    ) -> tuple[Array, tuple[Array, ...]]:
        return self._step(F, p, g, moments, lr=lr, weight_decay=weight_decay, step=step, donate=True)

    def _step(
        self,
        F: OpTable,
        p: Array,
        g: Array,
        moments: tuple[Array, ...],
        *,
        lr: float,
        weight_decay: float,
        step: int,
        donate: bool,
    ) -> tuple[Array, tuple[Array, ...]]:
        c = self.config
        p, m, v = F.adamw(
            p,
            g,
            *moments,
            lr=lr,
            beta1=c.beta1,
            beta2=c.beta2,
            eps=c.eps,
            weight_decay=weight_decay,
            step=step,
            donate=donate,
        )
        return p, (m, v)
