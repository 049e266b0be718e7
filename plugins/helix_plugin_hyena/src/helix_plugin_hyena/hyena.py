"""Hyena: a data-controlled recurrence of gates and long convolutions."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.layer import Layer, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, normal, uniform
from helix_core.ops import OpTable, device_of
from helix_core.ops.long_conv import long_conv_flops
from helix_plugin_hyena.heads import OperatorConfig
from helix_plugin_hyena.history import carried
from helix_plugin_hyena.implicit_filter import Kept, embedding, mlp, mlp_params, window
from helix_plugin_hyena.online import Online, position_after

Array = Any

DIRECT = 2048
"""Taps up to which a step sums over all of its history, unless told otherwise: that is less work up to so many."""


class HyenaConfig(OperatorConfig):
    """Options of the Hyena operator; the defaults are those of the authors' code."""

    l_max: int = Field(1024, gt=1, description="taps of the long filters: how far back the layer looks")
    filter_order: int = Field(64, gt=0, description="width of the network that draws the filters")
    filter_emb_dim: int = Field(3, ge=3, description="size of a position's embedding; odd: time, cosines and sines")
    filter_inner_mlps: int = Field(2, ge=0, le=1000, description="inner layers of that network")
    filter_freq: float = Field(1.0, gt=0, description="initial frequency of its sines")
    fast_decay_pct: float = Field(0.3, gt=0, description="fraction of l_max in which the shortest filter decays")
    slow_decay_pct: float = Field(1.5, gt=0, description="and the longest")
    decay_target: float = Field(0.01, gt=0, lt=1, description="what they decay to")
    decay_shift: float = Field(0.0, ge=0, description="added to the decay, so that filters need not vanish")
    normalized: bool = Field(False, description="divide a filter's values at each position by their sum of sizes")
    bidirectional: bool = Field(False, description="look ahead too, for filling in spans; such a layer has no state")
    decoding: Literal["auto", "direct", "online"] = Field(
        "auto",
        description=f"a step sums over l_max inputs, or takes O(log² l_max) on average; auto: online beyond {DIRECT}",
    )

    @model_validator(mode="after")
    def _embeds(self) -> HyenaConfig:
        if self.filter_emb_dim % 2 == 0:
            raise ValueError("filter_emb_dim must be odd: time, and as many cosines as sines")
        return self

    @property
    def online(self) -> bool:
        """Whether steps go by blocks."""
        return self.decoding == "online" or (self.decoding == "auto" and self.l_max > DIRECT)


class Hyena(Layer[HyenaConfig]):
    """in_proj -> short conv -> (gate -> long conv) x (order - 1) -> gate -> out_proj.

        [x_0; ...; x_{N-1}; v] = conv(W_in x + b_in)
        v = h_i * (x_{N-i} v) + D_i x_{N-i} v      for i = 1 .. N-1, over time
        y = W_out (x_0 v) + b_out
        h(t) = network([t, cos, sin of 2πft]) (exp(-a t) + shift),  t in 0..1 over l_max steps

    With `outer_product` (MultiHyena) heads m have one filter h^m each, x_0, x_1, v are queries, keys and values, and
    Z_t = (h^m * v^m x_1^mᵀ)_t + D^m v^m_t x_1^m_tᵀ,  y^m_t = Z_t x_0^m_t, Z of d_model / num_heads squared numbers.

    All at once it takes O(L log L) time. Decoding is exact: the state holds the inputs of the convolutions as far back
    as the filters reach, and steps further back than l_max have no influence. A step takes O(l_max), a sum over them,
    or O(log² l_max) on average by blocks of steps (`decoding`), whose state is four times as large. `bidirectional`
    adds a filter over the steps ahead to each long convolution; the short one looks back.

    State: short (B, K-1, (N+1) D), last inputs of the short convolution; long.i, of the i-th long one, (B, l_max-1, D)
    or blocks (`helix_plugin_hyena.online.Online`) and position (B,), steps so far.
    Source: Poli et al., Hyena Hierarchy: Towards Larger Convolutional Language Models, 2023, and the authors' code,
    which also trains the embeddings of positions, at a hundredth of the learning rate. MultiHyena: Massaroli et al.,
    Laughing Hyena Distillery, 2023.

    >>> from helix_core import create
    >>> layer = create("layer", "hyena", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (30208, 263424)
    """

    def __init__(self, config: HyenaConfig) -> None:
        super().__init__(config)
        self.causal = not config.bidirectional
        self.heads = config.heads
        self._online = Online(config.l_max) if config.online else None
        self._kept = Kept()

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        D, width, K = c.d_model, (c.order + 1) * c.d_model, c.short_filter_order
        outputs = c.filters * (2 if c.bidirectional else 1)
        network = mlp_params(c.filter_order, c.filter_emb_dim, c.filter_inner_mlps, outputs, c.filter_freq)
        return {
            "in_proj.weight": ParamSpec((width, D), fan_in()),
            "in_proj.bias": ParamSpec((width,), uniform(1 / math.sqrt(D)), weight_decay=False),
            "short_filter.weight": ParamSpec((width, K), uniform(1 / math.sqrt(K)), weight_decay=False),
            "short_filter.bias": ParamSpec((width,), uniform(1 / math.sqrt(K)), weight_decay=False),
            **network,
            "filter.bias": ParamSpec((c.filters,), normal(1.0), weight_decay=False),
            "out_proj.weight": ParamSpec((D, D), fan_in(), residual=True),
            "out_proj.bias": ParamSpec((D,), constant(0.0), weight_decay=False),
        }

    def filters(self, F: OpTable, p: Params, length: int) -> list[Array]:
        """For each long convolution the filter (length, channels), its skip D_i added to the first tap.

        The backward filters of a bidirectional layer follow, without the tap of the present.
        """
        c, xp = self.config, F.xp
        z = embedding(xp, c.l_max, length, c.filter_emb_dim, p["filter.freq"])
        h = mlp(F, p, z, c.filter_inner_mlps)
        if c.normalized:
            h = h / xp.sum(xp.abs(h), axis=-1, keepdims=True)
        count = self.heads.filters
        decay = window(xp, z[:, :1], count, c.fast_decay_pct, c.slow_decay_pct, c.decay_target) + c.decay_shift
        found = []
        for i in range(h.shape[1] // count):
            values = h[:, i * count : (i + 1) * count] * decay
            if i < c.order - 1:
                first = values[:1, :] + p["filter.bias"][i * count : (i + 1) * count]
            else:
                first = xp.zeros_like(values[:1, :])
            found.append(self.heads.spread(xp, xp.concat([first, values[1:, :]], axis=0), 1))
        return found

    def token_weights(self) -> int:
        c = self.config
        return (c.order + 1) * c.d_model * (c.d_model + c.short_filter_order) + c.d_model * c.d_model

    def mixing_flops(self, length: int) -> float:
        c, heads = self.config, self.heads
        directions = 2 if c.bidirectional else 1
        convolutions = directions * (c.order - 1) * heads.channels
        return convolutions * long_conv_flops(length, c.l_max) / length + heads.read_flops

    def step_mixing_flops(self, length: int) -> float:
        c, heads = self.config, self.heads
        if c.bidirectional:
            return 0.0
        each = self._online.step_flops() if self._online else long_conv_flops(1, c.l_max, c.l_max - 1)
        return (c.order - 1) * heads.channels * each + heads.read_flops

    def step_weights(self, batch: int = 1) -> float:
        # The filters as they are drawn, instead of the network that draws them.
        c, sizes = self.config, {name: math.prod(spec.shape) for name, spec in self.param_specs().items()}
        taps = self._online.step_taps() if self._online else c.l_max
        drawn = int((c.order - 1) * self.heads.channels * taps)
        return drawn + sum(size for name, size in sizes.items() if not name.startswith("filter."))

    def step_traffic(self, length: int) -> int:
        c = self.config
        if self._online is None:
            return super().step_traffic(length)
        short = 2 * (c.short_filter_order - 1) * (c.order + 1) * c.d_model
        return short + int((c.order - 1) * self.heads.channels * self._online.step_traffic())

    def init_state(self, F: OpTable, batch: int) -> State:
        c, channels = self.config, self.heads.channels
        if c.bidirectional:
            return {}
        state: State = {"short": F.zeros(batch, c.short_filter_order - 1, (c.order + 1) * c.d_model)}
        if self._online is None:
            return state | {f"long.{i}": F.zeros(batch, c.l_max - 1, channels) for i in range(c.order - 1)}
        state["position"] = F.asarray(np.zeros(batch, dtype=np.int64))
        return state | {f"long.{i}": self._online.empty(F, batch, channels) for i in range(c.order - 1)}

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
            initial_state=None if state is None else state["short"],
            reset=reset,
            lengths=lengths,
        )
        last_gate, *gates, v = xp.unstack(xp.reshape(u, (*u.shape[:2], c.order + 1, c.d_model)), axis=2)
        after: State = {"short": short}
        if state is not None and self._online is not None:
            after["position"] = position_after(xp, state["position"], x.shape[1], reset, lengths)
        for i, gate in enumerate(reversed(gates)):
            post = last_gate if i == c.order - 2 and not c.outer_product else None
            if c.outer_product or c.bidirectional or state is not None:
                v, gate = self.heads.products(xp, gate, v), None
            if c.bidirectional:
                v = both_ways(F, v, filters[i], filters[c.order - 1 + i], reset, lengths)
                v = v if post is None else v * post
            elif state is None:
                v = F.long_conv(v, filters[i], gate, post=post, reset=reset, lengths=lengths)
            else:
                v, after[f"long.{i}"] = self._go_on(F, v, filters[i], post, i, state, after, reset, lengths)
        if c.outer_product:
            v = self.heads.read(xp, v, last_gate)
        return F.linear(v, p["out_proj.weight"], p["out_proj.bias"]), None if state is None else after

    def _go_on(
        self,
        F: OpTable,
        v: Array,
        filter: Array,
        post: Array | None,
        i: int,
        state: State,
        after: State,
        reset: Array | None,
        lengths: Array | None,
    ) -> tuple[Array, Any]:
        """The i-th long convolution of v (B, L, channels) behind a state, times `post`; and its state after."""
        xp, online, before = F.xp, self._online, state[f"long.{i}"]
        if online is None:
            y = F.long_conv(v, filter, post=post, initial_state=before, reset=reset, lengths=lengths)
            return y, carried(xp, before, v, reset, lengths)
        if v.shape[1] == 1 and reset is None and lengths is None:
            y, following = online.step(F, before, state["position"], v, filter)
            return y if post is None else y * post, following
        history = online.history(xp, before, state["position"])
        reach = history[:, history.shape[1] - (self.config.l_max - 1) :, :]
        y = F.long_conv(v, filter, post=post, initial_state=reach, reset=reset, lengths=lengths)
        history = carried(xp, history, v, reset, lengths)
        return y, online.build(F, history, after["position"], filter)

    def _filters(self, F: OpTable, p: Params, length: int, with_state: bool) -> list[Array]:
        longest = self.config.l_max
        if F.dispatch_key.mode == "train":
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
    past = F.long_conv(v, back, reset=reset)
    return past + xp.flip(F.long_conv(xp.flip(v, axis=1), ahead, reset=turned), axis=1)
