"""What a layer is: a config plus pure functions, written once against the op table `F`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from helix_core.layers.init import ParamSpec
    from helix_core.ops.table import OpTable

Array = Any
Params = Mapping[str, Array]
State = dict[str, Any]


class LayerConfig(BaseModel):
    """Fields every layer has; a layer's own config adds to them. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    d_model: int = Field(gt=0, description="width of the residual stream")


ConfigT = TypeVar("ConfigT", bound=LayerConfig)


class Layer(ABC, Generic[ConfigT]):
    """A map of sequences (B, L, D) -> (B, L, D) with parameters and, if it is recurrent, a state.

    One function has two faces. Without a state it is the parallel form for training. With a state it continues
    from it and returns the next one: a prefill over many steps, or decoding with L = 1. Both give the same outputs.

    What a batch may look like, for every layer:

    reset (B, L)   True where a new document starts; nothing before such a step may reach it or anything after it
    lengths (B,)   steps at or beyond a row's length are right padding; they must not enter the returned state,
                   and outputs there are unspecified. Left padding never reaches a layer: models move it right.
    """

    causal: bool = True

    context: int | None = None
    """How many steps of a document a state holds at most; None for no limit."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def params(self) -> dict[str, ParamSpec]:
        """The parameters by name (dotted names become nested modules in frameworks that have them)."""

    @abstractmethod
    def apply(
        self,
        F: OpTable,
        p: Params,
        x: Array,
        *,
        state: State | None = None,
        reset: Array | None = None,
        lengths: Array | None = None,
    ) -> tuple[Array, State | None]:
        """x (B, L, D) -> y (B, L, D) and the state after it, or None if none was given."""

    def init_state(self, F: OpTable, batch: int) -> State:
        """The state before any input: a dict of arrays whose first axis is the batch."""
        return {}
