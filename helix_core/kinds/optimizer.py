"""What an optimizer is: an update rule on dicts of arrays, through the op table or in the array API."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable

Array = Any
Params = dict[str, Array]
OptimizerState = dict[str, Params]


class OptimizerConfig(BaseModel):
    """Fields every optimizer has. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(1e-3, gt=0, description="peak learning rate; the schedule scales it")
    weight_decay: float = Field(0.0, ge=0, description="decoupled: p <- p - lr * weight_decay * p")


ConfigT = TypeVar("ConfigT", bound=OptimizerConfig)


class Optimizer(ABC, Generic[ConfigT]):
    """An update rule. `slots` names the moments it keeps for every parameter; they start at zero.

    The state is `{slot: {parameter: array}}`, saved and restored bit by bit with the model.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def init(self, F: OpTable, params: Mapping[str, Array]) -> OptimizerState:
        """The state before the first step."""
        return {slot: {name: F.xp.zeros_like(p) for name, p in params.items()} for slot in self.slots}

    @abstractmethod
    def step(
        self, F: OpTable, p: Array, g: Array, moments: tuple[Array, ...], *, lr: float, decay: float, step: int
    ) -> tuple[Array, tuple[Array, ...]]:
        """One parameter's new value and moments; `step` counts from 1.

        `decay` is the coefficient λ of decoupled decay, 0 where the parameter has none: p <- (1 - lr λ) p comes on top
        of the rule (Loshchilov and Hutter, 2019).
        """

    def update(
        self,
        F: OpTable,
        params: Mapping[str, Array],
        grads: Mapping[str, Array],
        state: OptimizerState,
        *,
        lr: float,
        step: int,
        decay: frozenset[str] | None = None,
        lr_scale: Mapping[str, float] | None = None,
    ) -> tuple[Params, OptimizerState]:
        """New parameters and state. `lr` is this step's rate, `decay` names what decays (None: all)."""
        new_params: Params = {}
        new_state: OptimizerState = {slot: {} for slot in self.slots}
        for name, p in params.items():
            rate = lr * (lr_scale or {}).get(name, 1.0)
            weight_decay = self.config.weight_decay if decay is None or name in decay else 0.0
            moments = tuple(state[slot][name] for slot in self.slots)
            new_params[name], moments = self.step(F, p, grads[name], moments, lr=rate, decay=weight_decay, step=step)
            for slot, moment in zip(self.slots, moments, strict=True):
                new_state[slot][name] = moment
        return new_params, new_state
