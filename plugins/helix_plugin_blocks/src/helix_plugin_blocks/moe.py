"""Mixture of experts: every step goes through a few of many MLPs."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from helix_core.errors import ConfigError
from helix_core.kinds.component import ComponentConfig, layer_of
from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, fan_in
from helix_core.ops import OpTable, device_of
from helix_plugin_blocks._routing import Motifs, by_experts, by_gate, last_tokens

Array = Any


def _run(value: object) -> object:
    """A motif as tokens; text stands for its bytes."""
    return tuple(value.encode()) if isinstance(value, str) else value


Run = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**24)], ...], BeforeValidator(_run), Field(min_length=1, max_length=32)
]


class MoEConfig(LayerConfig):
    """Options of a mixture of experts; the defaults are Mixtral's."""

    expert: ComponentConfig = Field(
        ComponentConfig(name="swiglu"), description="the experts' layer and its options; any that has no state"
    )
    n_experts: int = Field(8, gt=1, le=2**16, description="experts, E")
    router: Literal["learned", "expert_choice", "motif"] = Field(
        "learned",
        description="who chooses: each step by a gate; each expert among a document's steps, later ones included; "
        "or the motif of tokens that ends at the step",
    )
    top_k: int | None = Field(
        None, gt=0, description="experts that a step goes through, on average if experts choose; default: 2, motif 1"
    )
    normalize: bool | None = Field(
        None, description="learned: divide the chosen experts' weights by their sum; default: if there are several"
    )
    balance: float = Field(0.01, ge=0, description="learned: weight of the load-balance loss in the training loss")
    shared_expert: ComponentConfig | None = Field(
        None, description="one more layer like the experts, which all steps go through, times the sigmoid of a gate"
    )
    motifs: tuple[Run, ...] = Field(
        (), description="motif: runs of tokens, or texts of bytes, most frequent first; `helix motifs` finds them"
    )

    @property
    def chosen(self) -> int:
        """Experts that a step goes through."""
        return self.top_k or (1 if self.router == "motif" else 2)

    @model_validator(mode="after")
    def _fits(self) -> MoEConfig:
        if self.chosen > self.n_experts:
            raise ValueError(f"top_k = {self.chosen} is more than there are experts, {self.n_experts}")
        if self.normalize and self.chosen == 1:
            raise ValueError("a single expert's weight divided by itself is 1: the gate would learn nothing")
        idle = self.model_fields_set & {"normalize", "balance"} if self.router != "learned" else set()
        if self.motifs and self.router != "motif":
            idle = {"motifs"}
        if idle:
            raise ValueError(f"{', '.join(sorted(idle))} means nothing for router = {self.router!r}: remove it")
        if self.router == "motif" and self.chosen != 1:
            raise ValueError("router = 'motif' sends every step to one expert: top_k must be 1")
        if len(set(self.motifs)) < len(self.motifs):
            raise ValueError("a motif is listed twice")
        nodes = sum(map(len, self.motifs)) + 2
        if nodes * (max((t for run in self.motifs for t in run), default=0) + 2) >= 2**31:
            raise ValueError("too many motifs for tokens of this size: shorten the list")
        return self


class MoE(Layer[MoEConfig]):
    """Experts e of E, of which each step goes through those in T_t.

        y_t = Σ_{e in T_t} w_te expert_e(x_t),  g_t = softmax(W_gate x_t)

    router     T_t, w_te
    learned    the top_k largest of g_t, g_te / Σ_{T_t} g (or g_te, see `normalize`); to the training loss comes
               balance E Σ_e f_e P_e, f_e the share of choices that fell on e, P_e the mean of g_te
    expert_choice   the experts among whose n top_k / E largest gates of the document's n steps g_te is; g_te
    motif      the expert of the longest of `motifs` that ends at step t, else that of a hash of the token; 1, no gate

    With `shared_expert`, sigmoid(w_s x_t) shared_expert(x_t) is added.

    Experts see the steps that are routed to them and no others: steps are sorted by expert, each expert is one product
    over its own. (Under a compiler that must know all sizes every expert sees all steps, for the same result.) Nothing
    is dropped, so a step's result does not depend on other documents. The loss is least, `balance`, when experts are
    used equally. Where experts choose they are equally used without one, but a step's experts depend on the steps
    behind it: such a layer is not causal and has no state. A motif is a matter of the tokens before and at a step,
    which the model shares with the layer.
    State: none, every step on its own; motif: tokens (B, S), the last of the document, -1 for none, one fewer than the
    longest motif has. Names of the gates and the experts as in Hugging Face's Mixtral and Qwen3-Next, each expert with
    the names of its own layer.
    Source: Shazeer et al., Outrageously Large Neural Networks, 2017; Fedus, Zoph and Shazeer, Switch Transformers, 2021
    (loss); Jiang et al., Mixtral of Experts, 2024 (weights); Zhou et al., Mixture-of-Experts with Expert Choice
    Routing, 2022; Roller et al., Hash Layers For Large Sparse Models, 2021 (routing by tokens).

    >>> from helix_core import create
    >>> layer = create("layer", "moe", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (270848, 0)
    """

    def __init__(self, config: MoEConfig) -> None:
        super().__init__(config)
        self.expert = self._made(config.expert)
        self.shared = None if config.shared_expert is None else self._made(config.shared_expert)
        self._motifs: Motifs | None = None
        self.reach: int | None = 0
        if config.router == "expert_choice":
            self.causal, self.reach = False, None
        elif config.router == "motif":
            self._motifs = Motifs(config.motifs, config.n_experts)
            self.shares, self.reach = True, self._motifs.longest - 1

    def _made(self, component: ComponentConfig) -> Layer[Any]:
        expert: Layer[Any] = layer_of(component, self.config.d_model)
        if expert.reach != 0:
            raise ConfigError(
                f"experts treat every step on its own, and {component.name!r} does not",
                hint="take an MLP: swiglu, geglu or gelu_mlp",
            )
        return expert

    def token_weights(self) -> int:
        c = self.config
        each = self.expert.token_weights()
        return super().token_weights() - (c.n_experts - c.chosen) * each

    def step_weights(self, batch: int = 1) -> float:
        # Tokens that choose independently leave an expert out with probability 1 - k / E each.
        c = self.config
        each = sum(math.prod(spec.shape) for spec in self.expert.param_specs().values())
        return super().step_weights(batch) - each * c.n_experts * (1 - c.chosen / c.n_experts) ** batch

    def init_state(self, F: OpTable, batch: int) -> State:
        if self._motifs is None or self._motifs.longest == 1:
            return {}
        return {"tokens": F.asarray(np.full((batch, self._motifs.longest - 1), -1, dtype=np.int64))}

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        gate = {} if c.router == "motif" else {"gate.weight": ParamSpec((c.n_experts, c.d_model), fan_in())}
        specs: dict[str, ParamSpec] = gate
        for e in range(c.n_experts):
            specs |= {f"experts.{e}.{name}": spec for name, spec in self.expert.param_specs().items()}
        if self.shared is not None:
            specs |= {f"shared_expert.{name}": spec for name, spec in self.shared.param_specs().items()}
            specs["shared_expert_gate.weight"] = ParamSpec((1, c.d_model), fan_in())
        return specs

    def apply(
        self,
        F: OpTable,
        p: Params,
        x: Array,
        *,
        state: State | None = None,
        reset: Array | None = None,
        lengths: Array | None = None,
        shared: dict[str, Array] | None = None,
    ) -> tuple[Array, State | None]:
        return self.apply_with_loss(F, p, x, state=state, reset=reset, lengths=lengths, shared=shared)[:2]

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
        c, xp = self.config, F.xp
        batch, length, width = x.shape
        steps = xp.reshape(x, (batch * length, width))
        after, loss = state, None
        if self._motifs is not None:
            chosen, after = self._by_motif(F, state, reset, lengths, shared)
            weights = xp.ones_like(steps[:, :1])
        else:
            gates = F.softmax(F.linear(steps, p["gate.weight"]))
            if c.router == "learned":
                normalize = c.chosen > 1 if c.normalize is None else c.normalize
                chosen, weights = by_gate(xp, gates, c.chosen, normalize)
                loss = self._balance(xp, gates, chosen, batch, lengths) if c.balance else None
            elif state is not None:
                raise ValueError("a layer whose experts choose sees what follows and cannot go on from a state")
            else:
                chosen, weights = by_experts(F, gates, c.chosen, batch, reset, lengths)
        counts = [F.concrete(xp.sum(xp.astype(chosen == e, xp.int64))) for e in range(c.n_experts)]
        if None in counts:
            y = self._everywhere(F, p, steps, chosen, weights)
        else:
            y = self._routed(F, p, steps, chosen, weights, counts)
        if self.shared is not None:
            own = {name: p[f"shared_expert.{name}"] for name in self.shared.param_specs()}
            every = self.shared.apply(F, own, steps[None])[0][0]
            y = y + F.sigmoid(F.linear(steps, p["shared_expert_gate.weight"])) * every
        return xp.reshape(y, (batch, length, width)), after, loss

    def _by_motif(
        self,
        F: OpTable,
        state: State | None,
        reset: Array | None,
        lengths: Array | None,
        shared: dict[str, Array] | None,
    ) -> tuple[Array, State | None]:
        """The expert of each step (N, 1), and the state after."""
        if shared is None or "tokens" not in shared:
            raise ValueError("router = 'motif' goes by the tokens of a model, and this layer was called without them")
        assert self._motifs is not None
        tokens = shared["tokens"]
        before = (state or self.init_state(F, tokens.shape[0])).get("tokens")
        if before is None:
            chosen = self._motifs.route(F, tokens, tokens[:, :0], reset)
            return F.xp.reshape(chosen, (-1, 1)), state
        chosen = self._motifs.route(F, tokens, before, reset)
        after = None if state is None else {"tokens": last_tokens(F.xp, before, tokens, reset, lengths)}
        return F.xp.reshape(chosen, (-1, 1)), after

    def _routed(self, F: OpTable, p: Params, steps: Array, chosen: Array, weights: Array, counts: list[Any]) -> Array:
        """steps (N, D) through their chosen experts (N, M), of which expert e gets counts[e]; E stands for none."""
        xp, top_k = F.xp, chosen.shape[1]
        order = xp.argsort(xp.reshape(chosen, (-1,)), stable=True)
        sorted_steps = xp.take(steps, order // top_k, axis=0)
        parts, begin = [], 0
        for e, count in enumerate(counts):
            if count:
                parts.append(self._expert(F, p, e, sorted_steps[begin : begin + count]))
            begin += count
        if begin < sorted_steps.shape[0]:
            parts.append(xp.zeros_like(sorted_steps[begin:]))
        y = xp.take(xp.concat(parts, axis=0), xp.argsort(order, stable=True), axis=0)
        return xp.sum(xp.reshape(y, (*chosen.shape, steps.shape[1])) * weights[..., None], axis=1)

    def _everywhere(self, F: OpTable, p: Params, steps: Array, chosen: Array, weights: Array) -> Array:
        """The same where the numbers of steps are not known, because a compiler traces: every expert sees all."""
        y = F.xp.zeros_like(steps)
        for e in range(self.config.n_experts):
            weight = F.xp.sum(F.xp.where(chosen == e, weights, F.xp.zeros_like(weights)), axis=1)
            y = y + weight[:, None] * self._expert(F, p, e, steps)
        return y

    def _expert(self, F: OpTable, p: Params, e: int, steps: Array) -> Array:
        own = {name: p[f"experts.{e}.{name}"] for name in self.expert.param_specs()}
        return self.expert.apply(F, own, steps[None])[0][0]

    def _balance(self, xp: Any, gates: Array, chosen: Array, batch: int, lengths: Array | None) -> Array:
        """The load-balance loss over real steps: gates (steps, E), chosen (steps, top_k)."""
        c = self.config
        experts = xp.arange(c.n_experts, dtype=chosen.dtype, device=device_of(chosen))
        used = xp.sum(xp.astype(chosen[..., None] == experts, gates.dtype), axis=1)
        if lengths is None:
            share, mean = xp.mean(used, axis=0), xp.mean(gates, axis=0)
        else:
            at = xp.arange(gates.shape[0] // batch, dtype=lengths.dtype, device=device_of(lengths))
            real = xp.reshape(xp.astype(at[None, :] < lengths[:, None], gates.dtype), (-1, 1))
            count = xp.maximum(xp.sum(real), xp.ones_like(xp.sum(real)))
            share, mean = xp.sum(used * real, axis=0) / count, xp.sum(gates * real, axis=0) / count
        return c.balance * c.n_experts / c.chosen * xp.sum(share * mean)
