"""Hyena: a data-controlled recurrence of gates and long convolutions."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, model_validator

from helix_core.layers import Layer, LayerConfig, Params, ParamSpec, State
from helix_core.layers.init import constant, fan_in, normal, uniform
from helix_core.ops import OpTable, device_of
from helix_core.ops.long_conv import long_conv_flops
from helix_plugin_hyena.history import carried
from helix_plugin_hyena.implicit_filter import Kept, embedding, mlp, mlp_params, window

Array = Any


class HyenaConfig(LayerConfig):
    """Options of the Hyena operator; the defaults are those of the authors' code."""

    order: int = Field(2, ge=2, description="N: gates, and one more than there are long convolutions")
    l_max: int = Field(1024, gt=1, description="taps of the long filters: how far back the layer looks")
    num_heads: int = Field(1, gt=0, description="heads; the channels of a head have filters of their own, heads share")
    short_filter_order: int = Field(3, gt=0, description="taps of the short convolution")
    filter_order: int = Field(64, gt=0, description="width of the network that draws the filters")
    filter_emb_dim: int = Field(3, ge=3, description="size of a position's embedding; odd: time, cosines and sines")
    filter_inner_mlps: int = Field(2, ge=0, description="inner layers of that network")
    filter_freq: float = Field(1.0, gt=0, description="initial frequency of its sines")
    fast_decay_pct: float = Field(0.3, gt=0, description="fraction of l_max in which the shortest filter decays")
    slow_decay_pct: float = Field(1.5, gt=0, description="and the longest")
    decay_target: float = Field(0.01, gt=0, lt=1, description="what they decay to")
    decay_shift: float = Field(0.0, ge=0, description="added to the decay, so that filters need not vanish")
    normalized: bool = Field(False, description="divide a filter's values at each position by their sum of sizes")
    bidirectional: bool = Field(False, description="look ahead too, for filling in spans; such a layer has no state")

    @model_validator(mode="after")
    def _fits(self) -> HyenaConfig:
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model = {self.d_model} must be divisible by num_heads = {self.num_heads}")
        if self.filter_emb_dim % 2 == 0:
            raise ValueError("filter_emb_dim must be odd: time, and as many cosines as sines")
        return self

    @property
    def filters(self) -> int:
        """Filters in one direction."""
        return (self.order - 1) * self.d_model // self.num_heads


class Hyena(Layer[HyenaConfig]):
    """in_proj -> short conv -> (gate -> long conv) x (order - 1) -> gate -> out_proj.

        [x_0; ...; x_{N-1}; v] = conv(W_in x + b_in)
        v = h_i * (x_{N-i} v) + D_i x_{N-i} v      for i = 1 .. N-1, over time
        y = W_out (x_0 v) + b_out
        h(t) = network([t, cos, sin of 2πft]) (exp(-a t) + shift),  t in 0..1 over l_max steps

    All at once it takes O(L log L) time. A step of decoding takes O(l_max), exactly, whatever came before: the state
    holds the inputs of the convolutions as far back as the filters reach. Steps further back than l_max have no
    influence. `bidirectional` adds a filter over the steps ahead to each long convolution; the short one looks back.

    State: short (B, K-1, (N+1) D), last inputs of the short convolution; long.i (B, l_max-1, D), of the i-th long one.
    Source: Poli et al., Hyena Hierarchy: Towards Larger Convolutional Language Models, 2023, and the authors' code,
    which also trains the embeddings of positions, at a hundredth of the learning rate.
    """

    def __init__(self, config: HyenaConfig) -> None:
        super().__init__(config)
        self.causal = not config.bidirectional
        self._kept = Kept()

    def params(self) -> dict[str, ParamSpec]:
        c = self.config
        D, width, K = c.d_model, (c.order + 1) * c.d_model, c.short_filter_order
        outputs = c.filters * (2 if c.bidirectional else 1)
        network = mlp_params(c.filter_order, c.filter_emb_dim, c.filter_inner_mlps, outputs, c.filter_freq)
        return {
            "in_proj.weight": ParamSpec((width, D), fan_in()),
            "in_proj.bias": ParamSpec((width,), uniform(1 / math.sqrt(D)), decay=False),
            "short_filter.weight": ParamSpec((width, K), uniform(1 / math.sqrt(K)), decay=False),
            "short_filter.bias": ParamSpec((width,), uniform(1 / math.sqrt(K)), decay=False),
            **network,
            "filter.bias": ParamSpec((c.filters,), normal(1.0), decay=False),
            "out_proj.weight": ParamSpec((D, D), fan_in(), residual=True),
            "out_proj.bias": ParamSpec((D,), constant(0.0), decay=False),
        }

    def filters(self, F: OpTable, p: Params, length: int) -> list[Array]:
        """For each long convolution the filter (length, D), its skip D_i added to the first tap; the backward
        filters of a bidirectional layer follow, without the tap of the present.
        """
        c, xp = self.config, F.xp
        z = embedding(xp, c.l_max, length, c.filter_emb_dim, p["filter.freq"])
        h = mlp(F, p, z, c.filter_inner_mlps)
        if c.normalized:
            h = h / xp.sum(xp.abs(h), axis=-1, keepdims=True)
        head = c.d_model // c.num_heads
        decay = window(xp, z[:, :1], head, c.fast_decay_pct, c.slow_decay_pct, c.decay_target) + c.decay_shift
        found = []
        for i in range(h.shape[1] // head):
            values = h[:, i * head : (i + 1) * head] * decay
            if i < c.order - 1:
                first = values[:1, :] + p["filter.bias"][i * head : (i + 1) * head]
            else:
                first = xp.zeros_like(values[:1, :])
            found.append(xp.tile(xp.concat([first, values[1:, :]], axis=0), (1, c.num_heads)))
        return found

    def token_weights(self) -> int:
        c = self.config
        return (c.order + 1) * c.d_model * (c.d_model + c.short_filter_order) + c.d_model * c.d_model

    def mixing_flops(self, length: int) -> float:
        c = self.config
        directions = 2 if c.bidirectional else 1
        return directions * (c.order - 1) * c.d_model * long_conv_flops(length, c.l_max) / length

    def step_mixing_flops(self, length: int) -> float:
        c = self.config
        return 0.0 if c.bidirectional else (c.order - 1) * c.d_model * long_conv_flops(1, c.l_max, c.l_max - 1)

    def step_weights(self) -> int:
        # The filters as they are drawn, instead of the network that draws them.
        c, sizes = self.config, {name: math.prod(spec.shape) for name, spec in self.params().items()}
        drawn = (c.order - 1) * c.d_model * c.l_max
        return drawn + sum(size for name, size in sizes.items() if not name.startswith("filter."))

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        if c.bidirectional:
            return {}
        width = (c.order + 1) * c.d_model
        longs = {f"long.{i}": F.zeros(batch, c.l_max - 1, c.d_model) for i in range(c.order - 1)}
        return {"short": F.zeros(batch, c.short_filter_order - 1, width), **longs}

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
        c, xp = self.config, F.xp
        if state is not None and c.bidirectional:
            raise ValueError("a bidirectional Hyena layer sees what follows and cannot go on from a state")
        filters = self._filters(F, p, x.shape[1], state is not None)
        u, short = F.causal_conv1d(
            F.linear(x, p["in_proj.weight"], p["in_proj.bias"]),
            p["short_filter.weight"],
            p["short_filter.bias"],
            None if state is None else state["short"],
            reset,
            lengths,
        )
        last_gate, *gates, v = xp.unstack(xp.reshape(u, (*u.shape[:2], c.order + 1, c.d_model)), axis=2)
        after: State = {"short": short}
        for i, gate in enumerate(reversed(gates)):
            post = last_gate if i == c.order - 2 else None
            if state is not None:
                v, history = v * gate, state[f"long.{i}"]
                after[f"long.{i}"] = carried(xp, history, v, reset, lengths)
                v = F.long_conv(v, filters[i], None, post, history, reset, lengths)
            elif not c.bidirectional:
                v = F.long_conv(v, filters[i], gate, post, None, reset, lengths)
            else:
                ahead = filters[c.order - 1 + i]
                v = both_ways(F, v * gate, filters[i], ahead, reset, lengths)
                v = v if post is None else v * post
        return F.linear(v, p["out_proj.weight"], p["out_proj.bias"]), None if state is None else after

    def _filters(self, F: OpTable, p: Params, length: int, with_state: bool) -> list[Array]:
        longest = self.config.l_max
        if F.facts.mode == "train":
            return self.filters(F, p, longest if with_state else min(length, longest))
        arrays = [p[name] for name in sorted(p) if name.startswith("filter.")]
        found: list[Array] = self._kept.get(arrays, lambda: self.filters(F, p, longest))
        return found


def both_ways(F: OpTable, v: Array, back: Array, ahead: Array, reset: Array | None, lengths: Array | None) -> Array:
    """Convolve v (B, L, D) with a filter over the past and one over the future, both (K, D), within documents."""
    xp = F.xp
    if lengths is not None:
        steps = xp.arange(v.shape[1], dtype=lengths.dtype, device=device_of(lengths))
        v = xp.where((steps[None, :] < lengths[:, None])[..., None], v, xp.zeros_like(v))
    turned = None
    if reset is not None:  # seen from the end, a document starts where the next one starts
        turned = xp.flip(xp.concat([reset[:, 1:], xp.zeros_like(reset[:, :1])], axis=1), axis=1)
    past = F.long_conv(v, back, None, None, None, reset)
    return past + xp.flip(F.long_conv(xp.flip(v, axis=1), ahead, None, None, None, turned), axis=1)
