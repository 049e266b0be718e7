"""The language model every recipe trains: tokens in, next-token logits out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from helix_core.layers.base import State
from helix_core.layers.init import ParamSpec, fan_in, init_params, normal
from helix_core.models.block import Block, Norm
from helix_core.models.config import ComponentConfig, ModelConfig
from helix_core.models.padding import last_real, pack_left, reorder

if TYPE_CHECKING:
    import numpy as np

    from helix_core.layers.base import Layer
    from helix_core.ops.table import OpTable

Array = Any


class LanguageModel:
    """Embedding -> blocks -> norm -> head, as pure functions of a flat dict of parameters.

    Parameter names are dotted (`blocks.0.mixer.in_proj.weight`), the same on every backend and in every checkpoint.
    Raises ConfigError or ComponentNotFound if a layer's options or name are wrong.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        norm = Norm(config.norm, config.d_model, config.norm_eps)
        mixers = config.mixer
        self.blocks = [
            Block(
                self._layer(mixers[i % len(mixers)]),
                self._layer(config.mlp) if config.mlp else None,
                norm,
            )
            for i in range(config.n_layers)
        ]
        self.norm = norm
        self._specs = self._collect_params()
        self._groups = _nest(self._specs)

    def _layer(self, component: ComponentConfig) -> Layer[Any]:
        from helix_core.plugin_system import create

        layer: Layer[Any] = create("layer", component.name, d_model=self.config.d_model, **component.options)
        return layer

    def _collect_params(self) -> dict[str, ParamSpec]:
        shape = (self.config.vocab_size, self.config.d_model)
        specs = {"embedding.weight": ParamSpec(shape, normal(0.02), decay=False)}
        for i, block in enumerate(self.blocks):
            specs |= {f"blocks.{i}.{name}": spec for name, spec in block.params().items()}
        specs |= {f"norm.{name}": spec for name, spec in self.norm.params().items()}
        if not self.config.tie_embeddings:
            specs["head.weight"] = ParamSpec(shape, fan_in())
        return specs

    def params(self) -> dict[str, ParamSpec]:
        """Every parameter's spec by its dotted name."""
        return dict(self._specs)

    def init(self, seed: int) -> dict[str, np.ndarray]:
        """Fresh float32 parameters; the same seed gives the same bits on every machine and backend."""
        writers = sum(len(block.parts) for block in self.blocks)
        return init_params(self._specs, seed, residual_scale=1 / math.sqrt(writers))

    def init_state(self, F: OpTable, batch: int) -> State:
        """The state before the first token of `batch` rows."""
        return {"blocks": [block.init_state(F, batch) for block in self.blocks]}

    @property
    def context(self) -> int | None:
        """How many tokens of a document fit into the state; None for no limit."""
        limits = [layer.context for block in self.blocks for layer in block.parts.values()]
        return min((limit for limit in limits if limit is not None), default=None)

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
    ) -> tuple[Array, State | None]:
        """Integer tokens (B, L) -> logits (B, L, V), and the state after them if one was given.

        mask (B, L)   True for real tokens; others (padding, anywhere) are as if they were not there, and the
                      logits at their places mean nothing
        reset (B, L)  True where a new document starts in a row of several
        last          only the logits of each row's last real token, (B, 1, V): all that reading a prompt needs
        """
        x, after = self.features(F, params, tokens, state=state, mask=mask, reset=reset, last=last)
        return self.head(F, params, x), after

    def head(self, F: OpTable, params: Mapping[str, Array], x: Array) -> Array:
        """Features (B, L, D) -> logits (B, L, V)."""
        return F.linear(x, params["embedding.weight" if self.config.tie_embeddings else "head.weight"])

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
    ) -> tuple[Array, State | None]:
        """Integer tokens (B, L) -> what the head reads (B, L, D), and the state after them; see `apply`."""
        order, lengths = None, None
        if mask is not None:
            order, inverse, lengths = pack_left(F.xp, mask)
            tokens = reorder(F.xp, tokens, order)
            if reset is not None:
                reset = reorder(F.xp, F.xp.logical_and(reset, mask), order)
        p = {part: _pick(names, params) for part, names in self._groups.items()}
        x = F.embedding(tokens, params["embedding.weight"])
        residual, after = None, []
        for i, block in enumerate(self.blocks):
            before = None if state is None else state["blocks"][i]
            x, residual, following = block.apply(
                F, p["blocks"][str(i)], x, residual, state=before, reset=reset, lengths=lengths
            )
            after.append(following)
        if last:
            x, residual = (last_real(F.xp, part, lengths) for part in (x, residual))
        x, _ = self.norm.apply(F, p["norm"], x, residual)
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
) -> Array:
    """Mean negative log-likelihood in nats per token: tokens, targets (B, L) -> scalar.

    With weights (B, L), the weighted sum instead: a mask over its count gives the mean over scored tokens.
    """
    logits, _ = model.apply(F, params, tokens, reset=reset)
    nats = F.cross_entropy(logits, targets)
    return F.xp.mean(nats) if weights is None else F.xp.sum(nats * weights)


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
