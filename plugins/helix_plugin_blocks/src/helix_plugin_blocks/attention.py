"""Softmax attention: grouped heads, rotary positions, a window or a full cache."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from helix_core.errors import UsageError
from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.ops import OpTable, device_of
from helix_plugin_blocks._rotary import angles, rotate

Array = Any


class AttentionConfig(LayerConfig):
    """Options of attention; the defaults are Llama's, with one head for every 64 channels."""

    n_heads: int | None = Field(None, gt=0, description="query heads, H; default: d_model / head_dim")
    n_kv_heads: int | None = Field(
        None, gt=0, description="key and value heads, G; default: H. 1 is multi-query, between them grouped-query"
    )
    head_dim: int | None = Field(None, gt=0, description="width of a head, K; default: d_model / n_heads, else 64")
    window: int | None = Field(None, gt=0, description="steps a query sees, its own included; default: all")
    max_length: int = Field(2048, gt=0, description="without a window: longest document that can go on from a state")
    rope: bool = Field(True, description="rotary positions")
    rope_theta: float = Field(10000.0, gt=1, description="θ of the rotary positions")
    rope_fraction: float = Field(1.0, gt=0, le=1, description="share of a head's channels that are turned")
    qk_norm: bool | Literal["zero_centered"] = Field(
        False, description="RMS norm of each query and key head, times its weight or, zero-centred, 1 + weight"
    )
    gate: bool = Field(False, description="multiply each head's output by the sigmoid of a gate")
    qkv_bias: bool = Field(False, description="add biases to queries, keys and values")
    o_bias: bool = Field(False, description="add a bias to the output")
    norm_eps: float = Field(1e-6, gt=0, description="epsilon of qk_norm")

    @model_validator(mode="after")
    def _fits(self) -> AttentionConfig:
        if self.n_heads is not None and self.head_dim is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model = {self.d_model} must be a multiple of n_heads = {self.n_heads}")
        if self.heads % self.groups:
            raise ValueError(f"the query heads, {self.heads}, must be a multiple of n_kv_heads = {self.groups}")
        if self.rope and self.turned < 2:
            raise ValueError("rotary positions turn pairs of channels: a head needs two; or set rope = false")
        return self

    @property
    def width(self) -> int:
        """Width of a head, K."""
        if self.head_dim is not None:
            return self.head_dim
        return min(64, self.d_model) if self.n_heads is None else self.d_model // self.n_heads

    @property
    def heads(self) -> int:
        """Query heads, H."""
        return max(1, self.d_model // self.width) if self.n_heads is None else self.n_heads

    @property
    def groups(self) -> int:
        """Key and value heads, G."""
        return self.heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def turned(self) -> int:
        """Channels of a head that are turned by the position."""
        return int(self.width * self.rope_fraction) // 2 * 2


class Attention(Layer[AttentionConfig]):
    """Multi-head, grouped-query or multi-query attention.

        q_i = R_i W_q x_i,  k_j = R_j W_k x_j,  v_j = W_v x_j, for each head
        y_i = W_o [Σ_j softmax_j(q_i·k_j / sqrt(K)) v_j], over the steps i - window < j <= i of the document

    R_i turns pairs of channels (first half, second half) by i θ^(-2m/K) radians; positions count from the start of
    each document. With `gate`, W_q has a gate behind each head's query, and the head's Σ is multiplied by its sigmoid.
    Parameter names as in Hugging Face's Llama; gates as in Qwen3-Next.
    State: keys, values (B, S, G, K), turned already, position p in slot p % S; position (B,), steps so far. With a
    window S = window, constant however long the document. Without one S = max_length, and going on from a state
    beyond that raises UsageError; the parallel face has no limit.
    Source: Vaswani et al., Attention Is All You Need, 2017; Shazeer, multi-query attention, 2019; Ainslie et al., GQA,
    2023; Su et al., RoFormer, 2021; Beltagy et al., Longformer, 2020 (window); Qiu et al., Gated
    Attention for Large Language Models, 2025 (gate).

    >>> from helix_core import create
    >>> layer = create("layer", "attention", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (16384, 1048580)
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        if config.window is None:
            self.context = config.max_length
        else:
            self.reach = config.window - 1

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        Q, KV = c.heads * c.width, c.groups * c.width
        asked = 2 * Q if c.gate else Q
        specs = {
            "q_proj.weight": ParamSpec((asked, c.d_model), fan_in()),
            "k_proj.weight": ParamSpec((KV, c.d_model), fan_in()),
            "v_proj.weight": ParamSpec((KV, c.d_model), fan_in()),
            "o_proj.weight": ParamSpec((c.d_model, Q), fan_in(), residual=True),
        }
        if c.qkv_bias:
            sizes = {"q_proj.bias": asked, "k_proj.bias": KV, "v_proj.bias": KV}
            specs |= {name: ParamSpec((size,), constant(0.0), weight_decay=False) for name, size in sizes.items()}
        if c.o_bias:
            specs["o_proj.bias"] = ParamSpec((c.d_model,), constant(0.0), weight_decay=False)
        if c.qk_norm:
            ones = ParamSpec((c.width,), constant(0.0 if c.qk_norm == "zero_centered" else 1.0), weight_decay=False)
            specs |= {"q_norm.weight": ones, "k_norm.weight": ones}
        return specs

    def mixing_flops(self, length: int) -> float:
        c = self.config
        seen = min(length, c.window or length)
        mean = seen - seen * (seen - 1) / (2 * length)  # of min(t, window) over t = 1 .. length
        return 4 * c.heads * c.width * mean

    def step_mixing_flops(self, length: int) -> float:
        c = self.config
        return 4 * c.heads * c.width * min(length + 1, c.window or length + 1)

    def step_traffic(self, length: int) -> int:
        c = self.config  # the filled part of the cache is read, one step is written
        return 2 * c.groups * c.width * (min(length, c.window or length) + 1)

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        size = c.window or c.max_length
        return {
            "keys": F.zeros(batch, size, c.groups, c.width),
            "values": F.zeros(batch, size, c.groups, c.width),
            "position": F.asarray(np.zeros(batch, dtype=np.int64)),
        }

    def room(self, F: OpTable, state: State) -> int | None:
        return None if self.config.window else self.config.max_length - int(F.xp.max(state["position"]))

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
        batch, length, _ = x.shape
        position = None
        if state is not None or reset is not None:
            position = positions(xp, x, None if state is None else state["position"], reset, lengths)
        if state is not None and c.window is None:
            self._check(F, position, lengths)

        def heads(name: str, count: int, width: int) -> Array:
            flat = F.linear(x, p[f"{name}_proj.weight"], p.get(f"{name}_proj.bias"))
            return xp.reshape(flat, (batch, length, count, width))

        q, gate = heads("q", c.heads, c.width * (2 if c.gate else 1)), None
        if c.gate:
            q, gate = q[..., : c.width], q[..., c.width :]
        k, v = heads("k", c.groups, c.width), heads("v", c.groups, c.width)
        if c.qk_norm:
            one = 1.0 if c.qk_norm == "zero_centered" else 0.0
            q = F.rms_norm(q, p["q_norm.weight"] + one, eps=c.norm_eps)
            k = F.rms_norm(k, p["k_norm.weight"] + one, eps=c.norm_eps)
        if c.rope:
            at = xp.arange(length, dtype=xp.int64, device=device_of(x)) if position is None else position
            cos, sin = angles(F, at, c.turned, c.rope_theta)
            q, k = (rotate(xp, part, xp.astype(cos, part.dtype), xp.astype(sin, part.dtype)) for part in (q, k))
        before = {} if state is None else {"keys": state["keys"], "values": state["values"]}
        y, keys, values = F.attention(q, k, v, position=position, **before, lengths=lengths, window=c.window or 0)
        if gate is not None:
            y = y * F.sigmoid(gate)
        y = F.linear(xp.reshape(y, (batch, length, c.heads * c.width)), p["o_proj.weight"], p.get("o_proj.bias"))
        if state is None:
            return y, None
        return y, {"keys": keys, "values": values, "position": steps_after(xp, state["position"], position, lengths)}

    def _check(self, F: OpTable, position: Array, lengths: Array | None) -> None:
        longest = self.config.max_length
        fits = position < longest
        if lengths is not None:
            steps = F.xp.arange(position.shape[1], dtype=lengths.dtype, device=device_of(lengths))
            fits = F.xp.logical_or(fits, steps[None, :] >= lengths[:, None])
        error = UsageError(
            f"a document is longer than the attention's cache of max_length = {longest} steps",
            hint="shorten it, or build the model with a larger `max_length` or with a `window`",
        )
        F.check(fits, error)


def positions(xp: Any, x: Array, begun: Array | None, reset: Array | None, lengths: Array | None) -> Array:
    """The place of each step (B, L) in its document, which rows are `begun` (B,) steps into."""
    batch, length, _ = x.shape
    steps = xp.arange(length, dtype=xp.int64, device=device_of(x))[None, :]
    first = xp.zeros((batch, 1), dtype=xp.int64, device=device_of(x)) if begun is None else -begun[:, None]
    if reset is None:
        return xp.broadcast_to(steps - first, (batch, length))
    if lengths is not None:
        reset = xp.logical_and(reset, steps < lengths[:, None])
    # The starts in order of time; the n-th document of a row is that of its n-th reset.
    starts = xp.sort(xp.where(reset, steps, xp.full_like(steps, length)), axis=1)
    document = xp.cumulative_sum(xp.astype(reset, xp.int64), axis=1)
    return steps - xp.take_along_axis(xp.concat([first, starts], axis=1), document, axis=1)


def steps_after(xp: Any, begun: Array, position: Array, lengths: Array | None) -> Array:
    """How far into its document each row is after a call: begun (B,), position (B, L) -> (B,)."""
    if lengths is None:
        return position[:, -1] + 1
    ends = xp.astype(lengths, xp.int64)[:, None]
    last = xp.take_along_axis(position, xp.where(ends > 0, ends - 1, xp.zeros_like(ends)), axis=1)
    return xp.where(ends > 0, last + 1, begun[:, None])[:, 0]
