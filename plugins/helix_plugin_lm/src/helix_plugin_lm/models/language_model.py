"""The language model every recipe trains: tokens in, next-token logits out."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from helix_core.errors import ConfigError, UsageError
from helix_core.kinds.component import ComponentConfig, layer_of
from helix_core.kinds.layer import State
from helix_core.kinds.params import ParamSpec, fan_in, init_params, normal
from helix_core.kinds.shapes import initial_state
from helix_core.machine import available_memory, require_memory
from helix_core.ops.arrays import last_real
from helix_core.ops.dropout import fold
from helix_plugin_lm.models.block import Block, Norm
from helix_plugin_lm.models.config import ModelConfig
from helix_plugin_lm.models.padding import pack_left, reorder
from helix_plugin_lm.models.reversible import ReversibleBlock

if TYPE_CHECKING:
    import numpy as np

    from helix_core.kinds.layer import Layer
    from helix_core.ops.table import OpTable

Array = Any

MOST_TENSORS = 1_000_000


class LanguageModel:
    """Embedding -> blocks -> norm -> head, as pure functions of a flat dict of parameters.

    Parameter names are dotted (`blocks.0.mixer.in_proj.weight`), the same on every backend and in every checkpoint.
    Raises ConfigError or ComponentNotFound if a layer's options or name are wrong.

    >>> import numpy as np
    >>> from helix_core import create
    >>> from helix_plugin_lm.models import LanguageModel, ModelConfig
    >>> model = LanguageModel(ModelConfig(d_model=8, n_layers=2, mixer={"name": "mamba", "d_state": 2}))
    >>> F, params = create("backend", "reference").bind(), model.init(seed=0)
    >>> logits, state = model.apply(F, params, np.array([[104, 105, 33]]), state=model.init_state(F, 1))
    >>> logits.shape, model.apply(F, params, np.array([[10]]), state=state)[0].shape
    ((1, 3, 256), (1, 1, 256))
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        norm = Norm(config.norm, config.d_model, config.norm_eps)
        mixers, mlps = config.mixer, config.mlp
        block = ReversibleBlock if config.reversible else Block
        self.blocks: list[Block] = []
        tensors = 0
        for i in range(config.n_layers):
            self.blocks.append(
                block(
                    self._layer(mixers[i % len(mixers)]),
                    self._layer(mlps[i % len(mlps)]) if mlps else None,
                    norm,
                    dropout=config.dropout,
                    skip=config.stochastic_depth * (i + 1) / config.n_layers,
                )
            )
            tensors += len(self.blocks[-1].param_specs())
            if tensors > MOST_TENSORS:
                raise ConfigError(
                    f"{i + 1:,} of the model's {config.n_layers:,} blocks have {tensors:,} parameter tensors already, "
                    f"more than {MOST_TENSORS:,}",
                    hint="lower model.n_layers, or the number of experts",
                )
        self.norm = norm
        self._specs = self._collect_params()
        self._groups = _nest(self._specs)
        self._head = "embedding.weight" if config.tie_embeddings else "head.weight"

    def _layer(self, component: ComponentConfig) -> Layer[Any]:
        layer: Layer[Any] = layer_of(component, self.config.d_model)
        if layer.shares and self.config.reversible:
            raise ConfigError(
                f"layer {component.name!r} reads what the model's layers share, which reversible blocks do not keep",
                hint="set model.reversible = false, or the layer's option for it (rwkv7: value_residual = false)",
            )
        return layer

    @property
    def vocab_size(self) -> int:
        """Number of tokens that the model knows."""
        return self.config.vocab_size

    def require_causal(self, purpose: str) -> None:
        """Raise UsageError, naming the layer, if one looks ahead: it would see the tokens that it is to predict."""
        for i, block in enumerate(self.blocks):
            for part, layer in block.parts.items():
                if not layer.causal:
                    which = f"the {part} of block {i} ({type(layer).__name__})"
                    raise UsageError(
                        f"{purpose} needs causal layers, and {which} looks ahead",
                        hint="it would see what it is to predict; switch that off (`bidirectional = false`, or of a "
                        'mixture of experts `router = "learned"`)',
                    )

    def _collect_params(self) -> dict[str, ParamSpec]:
        shape = (self.config.vocab_size, self.config.d_model)
        specs = {"embedding.weight": ParamSpec(shape, normal(0.02), weight_decay=False)}
        if self.config.embedding_norm:
            specs |= {f"embedding_norm.{name}": spec for name, spec in self.norm.param_specs().items()}
        for i, block in enumerate(self.blocks):
            specs |= {f"blocks.{i}.{name}": spec for name, spec in block.param_specs().items()}
        specs |= {f"norm.{name}": spec for name, spec in self.norm.param_specs().items()}
        if not self.config.tie_embeddings:
            specs["head.weight"] = ParamSpec(shape, fan_in())
        return specs

    @property
    def random(self) -> bool:
        """Whether training takes a random key: without one, nothing is dropped."""
        return self.config.dropout > 0 or self.config.stochastic_depth > 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_specs"}  # which hold functions

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._specs = self._collect_params()

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(math.prod(spec.shape) for spec in self._specs.values())

    @functools.cached_property
    def state_bytes(self) -> int:
        """Size of the state before the first token of a row, in float32."""
        layers = (layer for block in self.blocks for layer in block.parts.values())
        return sum(array.nbytes for layer in layers for array in initial_state(layer))

    def param_specs(self) -> dict[str, ParamSpec]:
        """Every parameter's spec by its dotted name."""
        return dict(self._specs)

    def init(self, seed: int) -> dict[str, np.ndarray]:
        """Fresh float32 parameters; the same seed gives the same bits on every machine and backend.

        Raises NotEnoughMemory, before any is drawn, if they cannot fit.
        """
        require_memory(4 * self.parameters, available_memory(), f"a model of {self.parameters:,} parameters")
        writers = sum(len(block.parts) for block in self.blocks)
        return init_params(self._specs, seed, residual_scale=1 / math.sqrt(writers))

    def init_state(self, F: OpTable, batch: int) -> State:
        """The state before the first token of `batch` rows. Raises NotEnoughMemory if it cannot fit."""
        if F.dispatch_key.device == "cpu":
            require_memory(batch * self.state_bytes, available_memory(), f"the state of {batch:,} rows")
        return {"blocks": [block.init_state(F, batch) for block in self.blocks]}

    @property
    def context(self) -> int | None:
        """How many tokens of a document fit into the state; None for no limit."""
        limits = [layer.context for block in self.blocks for layer in block.parts.values()]
        return min((limit for limit in limits if limit is not None), default=None)

    def room(self, F: OpTable, state: State) -> int | None:
        """How many more tokens fit into the fullest row of a state; None for no limit."""
        rooms = [
            layer.room(F, state["blocks"][i][part])
            for i, block in enumerate(self.blocks)
            for part, layer in block.parts.items()
        ]
        return min((room for room in rooms if room is not None), default=None)

    def apply(
        self,
        F: OpTable,
        params: Mapping[str, Array],
        tokens: Array,
        *,
        state: State | None = None,
        mask: Array | None = None,
        reset: Array | None = None,
        last: bool = False,
        key: Array | None = None,
        losses: list[Array] | None = None,
    ) -> tuple[Array, State | None]:
        """Integer tokens (B, L) -> logits (B, L, V), and the state after them if one was given.

        mask (B, L)   True for real tokens; others (padding, anywhere) are as if they were not there, and the
                      logits at their places mean nothing
        reset (B, L)  True where a new document starts in a row of several
        last          only the logits of each row's last real token, (B, 1, V): all that reading a prompt needs
        key (1,)      training only: an integer below 2^31 that says what dropout and stochastic depth drop
        losses        a list to which scalars are appended that layers add to the training loss
        """
        x, after = self.features(
            F, params, tokens, state=state, mask=mask, reset=reset, last=last, key=key, losses=losses
        )
        return self.head(F, params, x), after

    def head(self, F: OpTable, params: Mapping[str, Array], x: Array) -> Array:
        """Features (B, L, D) -> logits (B, L, V)."""
        return F.linear(x, params[self._head])

    def nats(self, F: OpTable, params: Mapping[str, Array], x: Array, targets: Array) -> Array:
        """-log p of targets (B, L), in nats, after features (B, L, D): as by `head`, but without all the logits."""
        return F.linear_cross_entropy(x, params[self._head], targets)

    def embed(self, F: OpTable, params: Mapping[str, Array], tokens: Array, key: Array | None = None) -> Array:
        """Integer tokens (B, L) -> what the first block reads (B, L, D)."""
        x = F.embedding(tokens, params["embedding.weight"])
        if self.config.embedding_norm:
            x, _ = self.norm.apply(F, _pick(self._groups["embedding_norm"], params), x)
        return x if key is None else F.dropout(x, key, rate=self.config.dropout)

    def run_block(
        self,
        F: OpTable,
        params: Mapping[str, Array],
        i: int,
        x: Array,
        residual: Array | None,
        *,
        state: State | None = None,
        reset: Array | None = None,
        lengths: Array | None = None,
        key: Array | None = None,
        losses: list[Array] | None = None,
        shared: dict[str, Array] | None = None,
    ) -> tuple[Array, Array, State | None]:
        """`Block.apply` of the i-th block, with the model's own parameters (of which others may be absent) and key."""
        own = None if key is None else fold(F.xp, key, i)
        p = _pick(self._groups["blocks"][str(i)], params)
        rows = {"state": state, "reset": reset, "lengths": lengths}
        return self.blocks[i].apply(F, p, x, residual, **rows, key=own, losses=losses, shared=shared)

    def invert_block(
        self,
        F: OpTable,
        params: Mapping[str, Array],
        i: int,
        first: Array,
        second: Array,
        *,
        reset: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, Array]:
        """`ReversibleBlock.invert` of the i-th block of a reversible model."""
        block, own = self.blocks[i], None if key is None else fold(F.xp, key, i)
        assert isinstance(block, ReversibleBlock)
        p = _pick(self._groups["blocks"][str(i)], params)
        return block.invert(F, p, first, second, reset=reset, key=own)

    def final_norm(self, F: OpTable, params: Mapping[str, Array], x: Array, residual: Array | None) -> Array:
        """What the last block returned (B, L, D) -> what the head reads (B, L, D)."""
        return self.norm.apply(F, _pick(self._groups["norm"], params), x, residual)[0]

    def features(
        self,
        F: OpTable,
        params: Mapping[str, Array],
        tokens: Array,
        *,
        state: State | None = None,
        mask: Array | None = None,
        reset: Array | None = None,
        last: bool = False,
        key: Array | None = None,
        losses: list[Array] | None = None,
    ) -> tuple[Array, State | None]:
        """Integer tokens (B, L) -> what the head reads (B, L, D), and the state after them; see `apply`."""
        order, lengths = None, None
        if mask is not None:
            order, inverse, lengths = pack_left(F.xp, mask)
            tokens = reorder(F.xp, tokens, order)
            if reset is not None:
                reset = reorder(F.xp, F.xp.logical_and(reset, mask), order)
        x: Array = self.embed(F, params, tokens, key)
        residual, after = None, []
        shared: dict[str, Array] = {"tokens": tokens}
        for i in range(len(self.blocks)):
            before = None if state is None else state["blocks"][i]
            rows: dict[str, Any] = {"reset": reset, "lengths": lengths, "key": key, "losses": losses, "shared": shared}
            x, residual, following = self.run_block(F, params, i, x, residual, state=before, **rows)
            after.append(following)
        if last:
            x, residual = (last_real(F.xp, part, lengths) for part in (x, residual))
        x = self.final_norm(F, params, x, residual)
        if order is not None and not last:
            x = reorder(F.xp, x, inverse)
        return x, None if state is None else {"blocks": after}


def loss(
    model: LanguageModel,
    F: OpTable,
    params: Mapping[str, Array],
    tokens: Array,
    targets: Array,
    *,
    reset: Array | None = None,
    weights: Array | None = None,
    key: Array | None = None,
) -> Array:
    """Mean negative log-likelihood in nats per token: tokens, targets (B, L) -> scalar.

    With weights (B, L), the weighted sum instead: a mask over its count gives the mean over scored tokens.
    What layers add to the training loss (the balance of a mixture of experts) is in it, by the same share.

    >>> import numpy as np
    >>> from helix_core import create
    >>> from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
    >>> model = LanguageModel(ModelConfig(d_model=8, n_layers=1, mixer={"name": "mamba", "d_state": 2}))
    >>> F, tokens = create("backend", "reference").bind(), np.array([[104, 105, 33]])
    >>> nats = loss(model, F, model.init(seed=0), tokens[:, :-1], tokens[:, 1:])
    >>> bool(abs(nats - np.log(256)) < 0.5)  # it knows nothing yet
    True
    """
    losses: list[Array] = []
    x, _ = model.features(F, params, tokens, reset=reset, key=key, losses=losses)
    nats = model.nats(F, params, x, targets)
    value = F.xp.mean(nats) if weights is None else F.xp.sum(nats * weights)
    if losses:
        extra = sum(losses)
        value = value + (extra if weights is None else extra * F.xp.sum(weights))
    return value


def _nest(specs: Mapping[str, ParamSpec]) -> dict[str, Any]:
    """Group full names for the parts that use them.

    `{"blocks": {"0": {"mixer": {"in_proj.weight": full name}, "mixer_norm": {...}}}, "norm": {...}}`
    """
    groups: dict[str, Any] = {}
    for full in specs:
        part, rest = full.split(".", 1)
        group = groups.setdefault(part, {})
        if part == "blocks":
            index, inner, rest = rest.split(".", 2)
            group = group.setdefault(index, {}).setdefault(inner, {})
        group[rest] = full
    return groups


def _pick(names: Mapping[str, Any], params: Mapping[str, Array]) -> dict[str, Any]:
    """The parameters a tree of full names stands for."""
    return {k: params[v] if isinstance(v, str) else _pick(v, params) for k, v in names.items()}
