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
    """An update rule. `slots` names the arrays that it may keep beside a parameter.

    The state is `{slot: {parameter: array}}`, saved and restored bit by bit with the model.

    >>> class SignSGD(Optimizer):
    ...     def step(self, F, p, g, moments, *, lr, weight_decay, step):
    ...         return p * (1 - lr * weight_decay) - lr * F.xp.sign(g), ()
    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> optimizer, params = SignSGD(OptimizerConfig()), {"w": np.asarray([1.0, 2.0])}
    >>> state = optimizer.init(F, params)
    >>> params, state = optimizer.update(F, params, {"w": np.asarray([0.1, -3.0])}, state, lr=0.5, step=1)
    >>> params["w"].tolist()
    [0.5, 2.5]
    """

    slots: tuple[str, ...] = ()

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def init(self, F: OpTable, params: Mapping[str, Array]) -> OptimizerState:
        """The state before the first step."""
        state: OptimizerState = {slot: {} for slot in self.slots}
        for name, p in params.items():
            for slot, array in self.init_slots(F, name, p).items():
                state[slot][name] = array
        return state

    def init_slots(self, F: OpTable, name: str, p: Array) -> dict[str, Array]:
        """What is kept beside parameter `name` at first, by slot. Default: every slot, zeros like the parameter.

        Arrays of any shape and dtype; a parameter need not have every slot. Adafactor keeps a row and a column beside a
        matrix, Muon one moment beside a hidden matrix and two beside an embedding.
        """
        return {slot: F.xp.zeros_like(p) for slot in self.slots}

    @abstractmethod
    def step(
        self, F: OpTable, p: Array, g: Array, moments: tuple[Array, ...], *, lr: float, weight_decay: float, step: int
    ) -> tuple[Array, tuple[Array, ...]]:
        """One parameter's new value, and that of its slots in the order of `slots`; `step` counts from 1.

        p and its gradient g have one shape, of any number of axes; new arrays keep shapes and dtypes. `weight_decay` is
        the coefficient λ of decoupled decay, 0 where the parameter has none: p <- (1 - lr λ) p comes on top of the rule
        (Loshchilov and Hutter, 2019).
        """

    def step_named(
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
        """`step` for parameter `name`; override it where the rule depends on which one it is, as Muon's does."""
        return self.step(F, p, g, moments, lr=lr, weight_decay=weight_decay, step=step)

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
        """`step_named` where p and the moments are used no more: override it if a kernel can write over them."""
        return self.step_named(F, name, p, g, moments, lr=lr, weight_decay=weight_decay, step=step)

    def update(
        self,
        F: OpTable,
        params: Mapping[str, Array],
        grads: Mapping[str, Array],
        state: OptimizerState,
        *,
        lr: float,
        step: int,
        decayed: frozenset[str] | None = None,
        lr_scale: Mapping[str, float] | None = None,
        donate: bool = False,
    ) -> tuple[Params, OptimizerState]:
        """New parameters and state after step number `step`, which counts from 1.

        lr         rate of this step, after the schedule
        decayed    names of the parameters that the config's weight decay acts on; None for all
        lr_scale   factor on the rate of a parameter, by name; 1 where there is none
        donate     whether the arrays of `params` and `state` may be written over: the caller uses them no more
        """
        rule = self.step_donated if donate else self.step_named
        new_params: Params = {}
        new_state: OptimizerState = {slot: {} for slot in self.slots}
        for name, p in params.items():
            held = [slot for slot in self.slots if name in state[slot]]
            moments = tuple(state[slot][name] for slot in held)
            new_params[name], moments = rule(
                F,
                name,
                p,
                grads[name],
                moments,
                lr=lr * (lr_scale or {}).get(name, 1.0),
                weight_decay=self.config.weight_decay if decayed is None or name in decayed else 0.0,
                step=step,
            )
            for slot, moment in zip(held, moments, strict=True):
                new_state[slot][name] = moment
        return new_params, new_state
