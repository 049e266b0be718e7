"""What a layer is: a config plus pure functions, written once against the op table `F`."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from helix_core.kinds.cost import Cost

if TYPE_CHECKING:
    from helix_core.kinds.params import ParamSpec
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

    That holds for whatever stands in padding or in another document, NaN too. Padding comes to `apply` as zeros, so
    that no weight has a gradient of it. `apply` has to keep documents apart: by `where`, since 0 times NaN is NaN.
    No steps or no rows never come to it: their outputs are nothing, and the state after them is the one before.
    """

    causal: bool = True

    reach: int | None = None
    """How many steps back an output looks: 0 for a layer that treats every step on its own, None for no limit."""

    context: int | None = None
    """How many steps of a document a state holds at most; None for no limit."""

    shares: bool = False
    """Whether `apply` also takes `shared`: a dict of arrays that one call of a model hands to its layers in their
    order. It begins with `tokens` (B, L); what a layer writes those after it may read: the same steps, nothing of
    other calls.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in {"apply", "apply_with_loss"} & cls.__dict__.keys():
            setattr(cls, name, _of_real_steps(cls.__dict__[name], rest=(None,) * (name == "apply_with_loss")))

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def param_specs(self) -> dict[str, ParamSpec]:
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

    def apply_with_loss(
        self,
        F: OpTable,
        p: Params,
        x: Array,
        *,
        state: State | None = None,
        reset: Array | None = None,
        lengths: Array | None = None,
        shared: dict[str, Array] | None = None,
    ) -> tuple[Array, State | None, Array | None]:
        """`apply`, and a scalar that the layer adds to the training loss (a mixture of experts' balance), or None.

        `shared` is given to layers that declare `shares`, and to no others.
        """
        sharing: dict[str, Any] = {} if shared is None else {"shared": shared}
        y, after = self.apply(F, p, x, state=state, reset=reset, lengths=lengths, **sharing)
        return y, after, None

    def init_state(self, F: OpTable, batch: int) -> State:
        """The state before any input: a dict of arrays whose first axis is the batch."""
        return {}

    def room(self, F: OpTable, state: State) -> int | None:
        """How many more steps fit into the fullest row of a state; None for no limit."""
        return None

    # What it costs: see helix_core.kinds.cost for what counts as a FLOP. A layer that mixes steps overrides
    # `mixing_flops`; the others only where their defaults are wrong. The layer kit compares all with a count.

    def token_weights(self) -> int:
        """Entries of the weights that every token is multiplied with: two FLOPs each. Default: all matrices `*weight`.

        A short convolution (channels, taps) is such a matrix too. A layer whose tokens meet some of the weights only
        (experts) or that has matrices applied to something else than tokens (a filter's network) overrides it.
        """
        return sum(
            math.prod(spec.shape)
            for name, spec in self.param_specs().items()
            if name.endswith("weight") and len(spec.shape) == 2
        )

    def mixing_flops(self, length: int) -> float:
        """FLOPs per token of what mixes steps, all `length` at once, besides the products with weights."""
        return 0.0

    def step_mixing_flops(self, length: int) -> float:
        """The same for one token decoded after `length` others. Default: `mixing_flops(1)`, right for recurrences."""
        return self.mixing_flops(1)

    def state_size(self, length: int) -> int:
        """Numbers in the state of one sequence after `length` tokens. Default: those of `init_state`."""
        from helix_core.kinds.shapes import initial_state

        return sum(math.prod(array.shape) for array in initial_state(self))

    def step_weights(self, batch: int = 1) -> float:
        """Weights that a step of decoding reads once for all its `batch` sequences: by default every parameter."""
        return sum(math.prod(spec.shape) for spec in self.param_specs().values())

    def step_traffic(self, length: int) -> int:
        """Numbers of its sequence's state that a decoded token reads or writes. Default: all, both."""
        return 2 * self.state_size(length)

    def cost(self, length: int, *, batch: int = 1, itemsize: int = 4) -> Cost:
        """FLOPs and bytes per token at `length` tokens, in `batch` sequences, with numbers of `itemsize` bytes."""
        products = 2.0 * self.token_weights()
        return Cost(
            parameters=sum(math.prod(spec.shape) for spec in self.param_specs().values()),
            forward_flops=products + self.mixing_flops(length),
            step_flops=products + self.step_mixing_flops(length),
            state_bytes=itemsize * self.state_size(length),
            step_bytes=itemsize * (self.step_weights(batch) / batch + self.step_traffic(length)),
        )


def _of_real_steps(apply: Callable[..., Any], rest: tuple[None, ...]) -> Callable[..., Any]:
    """A layer's `apply` or `apply_with_loss` for x with zeros in padding; where x is empty, (x, state, *rest)."""

    @functools.wraps(apply)
    def call(
        self: Any,
        F: OpTable,
        p: Params,
        x: Array,
        *,
        state: State | None = None,
        lengths: Array | None = None,
        **others: Any,
    ) -> Any:
        if 0 in x.shape[:2]:
            return x, state, *rest
        if lengths is not None:
            from helix_core.ops.arrays import blank_padding, valid_steps

            (x,) = blank_padding(F.xp, valid_steps(F.xp, x.shape[1], lengths), x)
        return apply(self, F, p, x, state=state, lengths=lengths, **others)

    return call
