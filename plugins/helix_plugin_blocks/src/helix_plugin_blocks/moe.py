"""Mixture of experts: a gate sends every step through a few of many MLPs."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from helix_core.errors import ConfigError
from helix_core.layers import Layer, LayerConfig, Params, ParamSpec, State
from helix_core.layers.init import fan_in
from helix_core.models import ComponentConfig
from helix_core.ops import OpTable, device_of

Array = Any


class MoEConfig(LayerConfig):
    """Options of a mixture of experts; the defaults are Mixtral's."""

    expert: ComponentConfig = Field(
        ComponentConfig(name="swiglu"), description="the experts' layer and its options; any that has no state"
    )
    n_experts: int = Field(8, gt=1, description="experts, E")
    top_k: int = Field(2, gt=0, description="experts that a step goes through")
    normalize: bool | None = Field(
        None, description="divide the chosen experts' weights by their sum; default: if there are several"
    )
    balance: float = Field(0.01, ge=0, description="weight of the load-balance loss in the training loss")

    @model_validator(mode="after")
    def _fits(self) -> MoEConfig:
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k = {self.top_k} is more than there are experts, {self.n_experts}")
        if self.normalize and self.top_k == 1:
            raise ValueError("a single expert's weight divided by itself is 1: the gate would learn nothing")
        return self


class MoE(Layer[MoEConfig]):
    """A learned gate chooses top_k experts for each step and weighs what they return.

        g_t = softmax(W_gate x_t),  T_t = the top_k largest of g_t
        y_t = Σ_{e in T_t} w_te expert_e(x_t),  w_te = g_te / Σ_{T_t} g (or g_te, see `normalize`)
        loss = balance E Σ_e f_e P_e, f_e the share of choices that fell on e, P_e the mean of g_te

    Experts see the steps that are routed to them and no others: steps are sorted by expert, each expert is one product
    over its own. (Under a compiler that must know all sizes every expert sees all steps, for the same result.) Nothing
    is dropped, so a step's result does not depend on the others in the batch. The loss is least, `balance`, when
    experts are used equally.
    No state: every step on its own. The gate and the experts' names as in Hugging Face's Mixtral, each expert with the
    names of its own layer.
    Source: Shazeer et al., Outrageously Large Neural Networks, 2017; Fedus, Zoph and Shazeer, Switch Transformers, 2021
    (loss); Jiang et al., Mixtral of Experts, 2024 (weights).
    """

    reach = 0

    def __init__(self, config: MoEConfig) -> None:
        super().__init__(config)
        from helix_core.plugin_system import create

        self.expert: Layer[Any] = create("layer", config.expert.name, d_model=config.d_model, **config.expert.options)
        if self.expert.reach != 0:
            raise ConfigError(
                f"experts treat every step on its own, and {config.expert.name!r} does not",
                hint="take an MLP: swiglu, geglu or gelu_mlp",
            )

    def token_weights(self) -> int:
        c = self.config
        gate = c.n_experts * c.d_model
        return gate + (super().token_weights() - gate) * c.top_k // c.n_experts

    def params(self) -> dict[str, ParamSpec]:
        c = self.config
        specs = {"gate.weight": ParamSpec((c.n_experts, c.d_model), fan_in())}
        for e in range(c.n_experts):
            specs |= {f"experts.{e}.{name}": spec for name, spec in self.expert.params().items()}
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
    ) -> tuple[Array, State | None]:
        return self.apply_with_loss(F, p, x, state=state, reset=reset, lengths=lengths)[:2]

    def apply_with_loss(
        self,
        F: OpTable,
        p: Params,
        x: Array,
        *,
        state: State | None = None,
        reset: Array | None = None,
        lengths: Array | None = None,
    ) -> tuple[Array, State | None, Array | None]:
        c, xp = self.config, F.xp
        batch, length, width = x.shape
        steps = xp.reshape(x, (batch * length, width))
        gates = F.softmax(F.linear(steps, p["gate.weight"]))
        chosen = xp.argsort(-gates, axis=-1, stable=True)[:, : c.top_k]
        weights = xp.take_along_axis(gates, chosen, axis=-1)
        if c.normalize or (c.normalize is None and c.top_k > 1):
            weights = weights / xp.sum(weights, axis=-1, keepdims=True)
        counts = [F.known(xp.sum(xp.astype(chosen == e, xp.int64))) for e in range(c.n_experts)]
        if None in counts:
            y = self._everywhere(F, p, steps, chosen, weights)
        else:
            y = self._routed(F, p, steps, chosen, weights, counts)
        y = xp.reshape(y, (batch, length, width))
        return y, state, self._balance(xp, gates, chosen, batch, lengths) if c.balance else None

    def _routed(self, F: OpTable, p: Params, steps: Array, chosen: Array, weights: Array, counts: list[Any]) -> Array:
        """steps (N, D) through their chosen experts (N, top_k), of which expert e gets counts[e]."""
        xp, top_k = F.xp, self.config.top_k
        order = xp.argsort(xp.reshape(chosen, (-1,)), stable=True)
        sorted_steps = xp.take(steps, order // top_k, axis=0)
        parts, begin = [], 0
        for e, count in enumerate(counts):
            if count:
                parts.append(self._expert(F, p, e, sorted_steps[begin : begin + count]))
            begin += count
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
        own = {name: p[f"experts.{e}.{name}"] for name in self.expert.params()}
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
        return c.balance * c.n_experts / c.top_k * xp.sum(share * mean)
