"""RWKV-7's time mix: a state that decays per channel and is corrected for a key, at a learning rate of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, normal, values
from helix_core.ops import OpTable
from helix_plugin_ssm._token_shift import token_shift

Array = Any

MAX_DECAY_RATE = math.exp(-0.5)
"""A step keeps at least exp(-exp(-1/2)) = 0.545 of every channel."""

MIX_POWERS = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)
"""x_c starts as 1 - (i/D)^power for channel i, in the order r, w, k, v, a, g."""


class RWKV7Config(LayerConfig):
    """Options of RWKV-7's time mix; the defaults are the authors'."""

    head_dim: int = Field(64, gt=0, description="width of a head, N; divides d_model")
    decay_rank: int | None = Field(None, gt=0, description="rank of the decay's map; 2.5 sqrt(d_model) if absent")
    rate_rank: int | None = Field(None, gt=0, description="rank of the learning rate's map; the same")
    gate_rank: int | None = Field(None, gt=0, description="rank of the gate's map; 5 sqrt(d_model) if absent")
    value_residual: bool = Field(False, description="blend the values of the model's first rwkv7 layer in")
    value_rank: int | None = Field(None, gt=0, description="rank of that blend's map; 1.7 sqrt(d_model) if absent")
    norm_eps: float = Field(64e-5, gt=0, description="epsilon of the group norm")

    @model_validator(mode="after")
    def _divides(self) -> RWKV7Config:
        if self.d_model % self.head_dim:
            raise ValueError(f"d_model = {self.d_model} must be a multiple of head_dim = {self.head_dim}")
        return self

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self.d_model // self.head_dim

    def rank(self, given: int | None, factor: float) -> int:
        """A multiple of 32 unless given, as the authors suggest."""
        return given or max(32, round(factor * math.sqrt(self.d_model) / 32) * 32)


class RWKV7(Layer[RWKV7Config]):
    """Token shift -> decay, key, value, learning rate, gate -> the rwkv7 op -> group norm -> bonus -> gate -> output.

        x^c_t = x_t + (x_{t-1} - x_t) x_c  for c in r, w, k, v, a, g
        r = W_r x^r,  k = W_k x^k,  v = W_v x^v,  g = sigmoid(x^g g1) g2
        log w = -exp(-1/2) sigmoid(w0 + tanh(x^w w1) w2),  a = sigmoid(a0 + x^a a1 a2)
        κ = normalize(k k_k) per head,  k = k (1 + (a - 1) k_a)
        S_t = diag(w_t) S_{t-1} - (a_t κ_t) (S_{t-1}ᵀ κ_t)ᵀ + k_t v_tᵀ
        y_t = W_o (g_t (ln_x(S_tᵀ r_t) + (r_t · r_k k_t) v_t))

    With `value_residual`, as in the authors' models, v = v + (v_first - v) sigmoid(v0 + x^v v1 v2) in every layer but
    the first, whose values are v_first. They come through what the model's layers share within a call (see
    `Layer.shares`): a layer alone is the first one, and leaves v0, v1 and v2 unused, as the authors' code does.
    State: shift (B, 1, D), the last input; wkv (B, H, N, N), S.
    Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025. Parameter names and layouts are
    those of BlinkDL/RWKV-LM, without axes of size 1. Initial values are those of its first layer, but matrices that
    it starts at zero start small.

    >>> from helix_core import create
    >>> layer = create("layer", "rwkv7", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (29504, 16640)
    """

    @property
    def shares(self) -> bool:  # type: ignore[override]
        """Whether layers share the values of the first, which `value_residual` mixes with their own."""
        return self.config.value_residual

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        D, N = c.d_model, c.head_dim

        def place() -> np.ndarray:
            return np.arange(D) / D

        def line() -> np.ndarray:
            return np.linspace(0, 1, D)

        def zigzag() -> np.ndarray:
            inside = np.tile(np.linspace(-1, 1, N) if N > 1 else np.zeros(1), c.heads)
            return inside * abs(inside)

        def vector(array: Callable[[], np.ndarray], lr_scale: float = 1.0) -> ParamSpec:
            return ParamSpec((D,), values(array), weight_decay=False, lr_scale=lr_scale)

        def mix(power: float) -> ParamSpec:
            return vector(lambda: 1 - place() ** power)

        specs = {f"x_{c}": mix(power) for c, power in zip("rwkvag", MIX_POWERS, strict=True)}
        specs |= {
            "w0": vector(lambda: 6 * line() - 5.5 + 2.5 * zigzag(), 2.0),
            "a0": vector(lambda: 0.3 * zigzag() + 0.4 * line() - 0.39),
            "k_k": vector(lambda: 0.76 - 0.1 * line()),
            "k_a": ParamSpec((D,), constant(1.02), weight_decay=False),
            "r_k": ParamSpec((c.heads, N), constant(-0.04), weight_decay=False),
        }
        specs |= self._low_rank("w", c.rank(c.decay_rank, 2.5))
        specs |= self._low_rank("a", c.rank(c.rate_rank, 2.5))
        specs |= self._low_rank("g", c.rank(c.gate_rank, 5.0))
        if c.value_residual:
            specs |= {"v0": vector(lambda: 0.93 - 0.4 * line())} | self._low_rank("v", c.rank(c.value_rank, 1.7))
        return specs | {
            "receptance.weight": ParamSpec((D, D), fan_in(0.5)),
            "key.weight": ParamSpec((D, D), fan_in(0.05)),
            "value.weight": ParamSpec((D, D), fan_in(0.5)),
            "ln_x.weight": ParamSpec((D,), constant(1.0), weight_decay=False),
            "ln_x.bias": ParamSpec((D,), constant(0.0), weight_decay=False),
            "output.weight": ParamSpec((D, D), fan_in(0.5), residual=True),
        }

    def _low_rank(self, name: str, rank: int) -> dict[str, ParamSpec]:
        D = self.config.d_model
        small = normal(0.1 / math.sqrt(D))
        return {
            f"{name}1": ParamSpec((D, rank), small, weight_decay=False),
            f"{name}2": ParamSpec((rank, D), small, weight_decay=False),
        }

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        return {
            "shift": F.zeros(batch, 1, c.d_model),
            "wkv": F.zeros(batch, c.heads, c.head_dim, c.head_dim),
        }

    def token_weights(self) -> int:
        factors = ("w1", "w2", "a1", "a2", "g1", "g2", "v1", "v2")
        low_rank = sum(math.prod(spec.shape) for name, spec in self.param_specs().items() if name in factors)
        return super().token_weights() + low_rank

    def mixing_flops(self, length: int) -> float:
        """Of the recurrence and of six token shifts, convolutions of two taps."""
        return 9.0 * self.config.d_model * self.config.head_dim + 24.0 * self.config.d_model

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
        c, xp = self.config, F.xp
        before = state or {"shift": None, "wkv": None}
        shape = (x.shape[0], x.shape[1], c.heads, c.head_dim)

        def mixed(name: str) -> Array:
            return token_shift(F, x, p[f"x_{name}"], before["shift"], reset, lengths)[0]

        def product(a: Array, name: str) -> Array:
            return F.linear(a, xp.matrix_transpose(p[name]))

        def heads(a: Array) -> Array:
            return xp.reshape(a, shape)

        x_r, shift = token_shift(F, x, p["x_r"], before["shift"], reset, lengths)
        x_v = mixed("v")
        r = F.linear(x_r, p["receptance.weight"])
        k = F.linear(mixed("k"), p["key.weight"])
        v = F.linear(x_v, p["value.weight"])
        if c.value_residual and shared is not None:
            first = shared.setdefault("rwkv7.v_first", v)
            if first is not v:
                v = v + (first - v) * F.sigmoid(p["v0"] + product(product(x_v, "v1"), "v2"))
        rate = F.sigmoid(p["a0"] + product(product(mixed("a"), "a1"), "a2"))
        gate = product(F.sigmoid(product(mixed("g"), "g1")), "g2")
        log_decay = -MAX_DECAY_RATE * F.sigmoid(p["w0"] + product(xp.tanh(product(mixed("w"), "w1")), "w2"))
        unit = _normalize(xp, heads(k * p["k_k"]))
        r, v, k = heads(r), heads(v), heads(k * (1 + (rate - 1) * p["k_a"]))
        y, wkv = F.rwkv7(
            r,
            heads(log_decay),
            k,
            v=v,
            a=-unit,
            b=unit * heads(rate),
            initial_state=before["wkv"],
            reset=reset,
            lengths=lengths,
        )
        y = F.layer_norm(y, F.asarray(np.ones(c.head_dim)), None, eps=c.norm_eps)
        y = xp.reshape(y, x.shape) * p["ln_x.weight"] + p["ln_x.bias"]
        y = y + xp.reshape(xp.sum(r * k * p["r_k"], axis=-1, keepdims=True) * v, x.shape)
        y = F.linear(y * gate, p["output.weight"])
        return y, None if state is None else {"shift": shift, "wkv": wkv}


def _normalize(xp: Any, a: Array) -> Array:
    """Vectors of length 1; zeros stay."""
    return a / xp.sqrt(xp.clip(xp.sum(a * a, axis=-1, keepdims=True), 1e-24, None))
