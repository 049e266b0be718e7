"""Mamba-3: trapezoidal steps, a state that turns, and several inputs and outputs for each head."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field

from helix_core.kinds.layer import Layer, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.ops import OpTable
from helix_core.ops.arrays import last_real, valid_steps, zeros
from helix_core.ops.quarantine import quarantined, released
from helix_plugin_ssm._heads import HeadsConfig
from helix_plugin_ssm._parts import linear_parts
from helix_plugin_ssm._rotary import rotate, total_turns
from helix_plugin_ssm._step_size import step_size_bias

Array = Any


class Mamba3Config(HeadsConfig):
    """Options of the Mamba-3 block; the defaults are those of the authors' code."""

    d_state: int = Field(128, gt=1, multiple_of=2, description="states per channel, N")
    mimo_rank: int = Field(1, gt=0, description="inputs and outputs of a head at a step, R; 1 is the SISO block")
    rope_fraction: float = Field(0.5, ge=0, le=1, description="part of the states that turns, in pairs")
    A_floor: float = Field(1e-4, gt=0, description="smallest -A at any time")
    out_norm: bool = Field(False, description="an RMS norm of each head before the gate")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the norms")

    @property
    def n_angles(self) -> int:
        """Pairs of states that turn, S."""
        return int(self.d_state * self.rope_fraction) // 2


class Mamba3(Layer[Mamba3Config]):
    """in_proj -> norms and biases of B and C -> turning, trapezoidal recurrence -> gate -> out_proj; no convolution.

        [z; x; B; C; dt; a; λ; θ] = W_in u
        Δ = softplus(dt + b_dt),  A = -max(1 + a if a >= 0 else 1 / (1 - a), A_floor),  λ = sigmoid(λ)
        B_r = rms_norm(B_r) + b_B,r,  C_r likewise,  both turned by the sum of Δ π tanh(θ) over the steps so far
        x_r = m_x,r x,  z_r = m_z,r z   for r = 1..R, elementwise
        S_t = exp(Δ_t A_t) (S_{t-1} + (1 - λ_t) Δ_t Σ_r B_{t-1,r} x_{t-1,r}ᵀ) + λ_t Δ_t Σ_r B_{t,r} x_{t,r}ᵀ
        y_r = S_tᵀ C_r + D x_r
        out = W_out Σ_r m_o,r y_r silu(z_r)

    Each head has its own S, Δ, A, λ, D and biases. With R = 1 there are no m. Turning pairs of real states is a
    complex state; pairs are (2i, 2i + 1) with R = 1 and (i, i + N/2) otherwise, as in the authors' kernels.

    What the trapezoid leaves of B_{t-1} x_{t-1}ᵀ to step t is added to what the step before it weighed: both together
    come in at step t, times exp(Δ_t A_t) (λ_{t-1} Δ_{t-1} + (1 - λ_t) Δ_t). So it is one gated linear attention to the
    steps before, of R positions a step, and R by R products: of a step's own part, and of what positions beyond its
    own hold of the step before.

    State: ssm (B, H, N, P), S turned back by the last step's angle, so that no angle grows without bound; key
    (B, H, R, N) and value (B, H, R, P), the last B and x. In ssm and key the first states of all pairs stand before
    the second.
    Source: Lahoti, Li, Chen, Wang, Bick, Kolter, Dao and Gu, Mamba-3: Improved Sequence Modeling using State Space
    Principles, 2026. Parameter names and order are those of the authors' code (state-spaces/mamba).

    >>> from helix_core import create
    >>> layer = create("layer", "mamba3", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (44164, 67072)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        E, N, G, H, R, D = c.d_inner, c.d_state, c.n_groups, c.n_heads, c.mimo_rank, c.d_model
        specs = {
            "in_proj.weight": ParamSpec((2 * E + 2 * N * G * R + 3 * H + c.n_angles, D), fan_in()),
            "dt_bias": ParamSpec((H,), step_size_bias(c.dt_min, c.dt_max, c.dt_init_floor), weight_decay=False),
            "B_bias": ParamSpec((H, R, N), constant(1.0), weight_decay=False),
            "C_bias": ParamSpec((H, R, N), constant(1.0), weight_decay=False),
            "B_norm.weight": ParamSpec((N,), constant(1.0), weight_decay=False),
            "C_norm.weight": ParamSpec((N,), constant(1.0), weight_decay=False),
            "D": ParamSpec((H,), constant(1.0), weight_decay=False),
            "out_proj.weight": ParamSpec((D, E), fan_in(), residual=True),
        }
        if R > 1:
            for name, value in (("mimo_x", 1 / R), ("mimo_z", 1.0), ("mimo_o", 1 / R)):
                specs[name] = ParamSpec((H, R, c.head_dim), constant(value), weight_decay=False)
        if c.out_norm:
            specs["norm.weight"] = ParamSpec((E,), constant(1.0), weight_decay=False)
        return specs

    def mixing_flops(self, length: int) -> float:
        c = self.config
        within = 4 * c.n_heads * c.mimo_rank**2 * (c.d_state + c.head_dim) if c.mimo_rank > 1 else 0
        return 5 * c.d_inner * c.d_state * c.mimo_rank + within

    def step_mixing_flops(self, length: int) -> float:
        c = self.config
        return self.mixing_flops(length) + 2 * c.d_inner * c.d_state * c.mimo_rank

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        return {
            "ssm": F.zeros(batch, c.n_heads, c.d_state, c.head_dim),
            "key": F.zeros(batch, c.n_heads, c.mimo_rank, c.d_state),
            "value": F.zeros(batch, c.n_heads, c.mimo_rank, c.head_dim),
        }

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
        E, N, G, H, R, P = c.d_inner, c.d_state, c.n_groups, c.n_heads, c.mimo_rank, c.head_dim
        batch, length, _ = x.shape
        sizes = (E, E, 2 * N * G * R, 3 * H + c.n_angles)
        z, u, bc, rest = linear_parts(F, x, p["in_proj.weight"], None, sizes)
        b, q = bc[..., : N * G * R], bc[..., N * G * R :]
        log_decay, now, later, turns = self._steps(F, p, rest, reset, lengths)
        cos, sin = self._rotation(xp, turns)

        key = self._states(F, b, p["B_norm.weight"], p["B_bias"])
        q = self._states(F, q, p["C_norm.weight"], p["C_bias"])
        v = xp.reshape(u, (batch, length, H, 1, P))
        k, q = (_turned(xp, a, cos, sin, (now + later)[..., None, None], v) for a in (key, q))
        if R > 1:
            v = v * p["mimo_x"]

        # The steps before: a state holds the last one's own part already, so that of it only what is left comes in.
        before = {"ssm": None, "key": None, "value": None} if state is None else state
        weight = xp.exp(log_decay) * (later + _shifted(xp, now, None, reset))
        k_before = weight[..., None, None] * _shifted(xp, k, before["key"], reset)
        v_before = _shifted(xp, v, before["value"], reset)
        y, ssm = self._attend(F, q, k_before, v_before, log_decay, before["ssm"], reset, lengths)
        own = now[..., None, None] * k
        if R == 1:
            y = y + (xp.sum(q * own, axis=-1, keepdims=True) + p["D"][:, None, None]) * v
        else:
            beyond = xp.matmul(q, xp.matrix_transpose(k_before)) * F.asarray(np.triu(np.ones((R, R)), 1))
            y = y + xp.matmul(xp.matmul(q, xp.matrix_transpose(own)), v) + p["D"][:, None, None] * v
            y = y + xp.matmul(beyond, v_before)

        y = self._gate(F, p, y, xp.reshape(z, (batch, length, H, 1, P)))
        y = F.linear(xp.reshape(y, (batch, length, E)), p["out_proj.weight"])
        if state is None:
            return y, None
        last, value = (_last(xp, a, xp.zeros_like(a[:, 0]), lengths) for a in (own, v))
        ssm = ssm + xp.matmul(xp.matrix_transpose(last), value)
        after = {
            "ssm": xp.matrix_transpose(rotate(xp, xp.matrix_transpose(ssm), cos[:, -1], -sin[:, -1])),
            "key": _last(xp, key, state["key"], lengths),
            "value": _last(xp, v, state["value"], lengths),
        }
        return y, after

    def _steps(
        self, F: OpTable, p: Params, rest: Array, reset: Array | None, lengths: Array | None
    ) -> tuple[Array, Array, Array, Array]:
        """Of every step: its log decay, what its B xᵀ and that of the step before weigh in it, and how far it turns.

        rest (B, L, 3H + n_angles) -> (B, L, H) three times, and turns (B, L, H, n_angles), 1 a full circle.
        """
        c, xp, H = self.config, F.xp, self.config.n_heads
        dt, a, trapezoid, theta = rest[..., :H], rest[..., H : 2 * H], rest[..., 2 * H : 3 * H], rest[..., 3 * H :]
        delta = F.softplus(dt + p["dt_bias"])
        heavy = xp.clip(a, 0.0, None) + 1 / (1 - xp.clip(a, None, 0.0))
        log_decay = -delta * xp.clip(heavy, c.A_floor, None)
        weight = F.sigmoid(trapezoid)
        now, later = weight * delta, (1 - weight) * delta
        turns = 0.5 * delta[..., None] * xp.tanh(theta)[:, :, None, :]
        turns = turns - xp.round(turns)  # so that in sums over all steps, a large one leaves the digits of the others
        turns = xp.where(xp.abs(turns) <= 1, turns, xp.zeros_like(turns))  # and one that is no number, too
        if lengths is not None:
            real = valid_steps(xp, rest.shape[1], lengths)[:, :, None]
            later = xp.where(real, later, xp.zeros_like(later))
            turns = xp.where(real[..., None], turns, xp.zeros_like(turns))
        if reset is not None:
            later = xp.where(reset[:, :, None], xp.zeros_like(later), later)
        return log_decay, now, later, turns

    def _rotation(self, xp: Any, turns: Array) -> tuple[Array, Array]:
        """cos and sin (B, L, H, 1, N/2) of all turns so far; pairs beyond the angles stand still."""
        angle = 2 * math.pi * total_turns(xp, turns)
        rest = self.config.d_state // 2 - self.config.n_angles
        still = zeros(xp, (*turns.shape[:3], rest), turns)
        cos, sin = xp.concat([xp.cos(angle), still + 1], axis=-1), xp.concat([xp.sin(angle), still], axis=-1)
        return cos[:, :, :, None, :], sin[:, :, :, None, :]

    def _states(self, F: OpTable, a: Array, weight: Array, bias: Array) -> Array:
        """B or C (B, L, RGN) normed and given its bias: (B, L, H, R, N), the first states of all pairs before the
        second."""
        c, xp = self.config, F.xp
        batch, length, _ = a.shape
        R, G, H, N = c.mimo_rank, c.n_groups, c.n_heads, c.d_state

        def halves(a: Array) -> Array:
            pairs = xp.reshape(a, (*a.shape[:-1], N // 2, 2))
            return xp.reshape(xp.matrix_transpose(pairs), a.shape)

        a = F.rms_norm(xp.reshape(a, (batch, length, R, G, N)), weight, eps=c.norm_eps)
        if R == 1:
            a, bias = halves(a), halves(bias)
        a = xp.permute_dims(a, (0, 1, 3, 2, 4))[:, :, :, None]
        return xp.reshape(a + xp.reshape(bias, (G, H // G, R, N)), (batch, length, H, R, N))

    def _attend(
        self,
        F: OpTable,
        q: Array,
        k: Array,
        v: Array,
        log_decay: Array,
        before: Array | None,
        reset: Array | None,
        lengths: Array | None,
    ) -> tuple[Array, Array]:
        """Gated linear attention with the R inputs of a step as R positions, of which the first decays the state."""
        xp, R = F.xp, self.config.mimo_rank
        batch, length, H = k.shape[:3]

        def positions(a: Array) -> Array:
            return xp.reshape(xp.permute_dims(a, (0, 1, 3, 2, 4)), (batch, length * R, H, a.shape[4]))

        def at_first(a: Array) -> Array:
            if R == 1:
                return a
            rest = xp.broadcast_to(xp.zeros_like(a[:, :, None]), (batch, length, R - 1, *a.shape[2:]))
            return xp.reshape(xp.concat([a[:, :, None], rest], axis=2), (batch, length * R, *a.shape[2:]))

        y, ssm = F.gated_linear_attention(
            positions(q),
            positions(k),
            positions(v),
            log_decay=at_first(log_decay)[..., None],
            initial_state=before,
            reset=None if reset is None else at_first(reset),
            lengths=None if lengths is None else lengths * R,
        )
        y = xp.reshape(y, (batch, length, R, H, y.shape[3]))
        return xp.permute_dims(y, (0, 1, 3, 2, 4)), ssm

    def _gate(self, F: OpTable, p: Params, y: Array, z: Array) -> Array:
        """y (B, L, H, R, P), z (B, L, H, 1, P) -> (B, L, H, P)."""
        c, xp = self.config, F.xp
        if c.out_norm:
            ones = F.asarray(np.ones(c.head_dim))
            y = F.rms_norm(y, ones, eps=c.norm_eps) * xp.reshape(p["norm.weight"], (c.n_heads, 1, c.head_dim))
        if c.mimo_rank == 1:
            return F.swiglu(z, y)
        return xp.sum(F.swiglu(z * p["mimo_z"], y) * p["mimo_o"], axis=3)


def _turned(xp: Any, a: Array, cos: Array, sin: Array, *factors: Array) -> Array:
    """`rotate`; the angle, a sum over all documents, gets no gradient from what is no number in another one, or from
    products with step sizes and values, `factors` (B, L, H, 1, ...), that may overflow.
    """
    (numbers,), lost = quarantined(xp, a)
    for factor in factors:
        lost = lost + quarantined(xp, factor, limit=1e12)[1]
    return released(xp, rotate(xp, numbers, cos, sin), lost)


def _shifted(xp: Any, a: Array, before: Array | None, reset: Array | None) -> Array:
    """What a (B, L, ...) held a step before: `before` (B, ...) or zeros at the first, zeros where a document starts."""
    first = xp.zeros_like(a[:, :1]) if before is None else xp.astype(before, a.dtype)[:, None]
    a = xp.concat([first, a[:, :-1]], axis=1)
    if reset is None:
        return a
    starts = xp.reshape(reset, (*reset.shape, *(1,) * (len(a.shape) - 2)))
    return xp.where(starts, xp.zeros_like(a), a)


def _last(xp: Any, a: Array, before: Array, lengths: Array | None) -> Array:
    """The last real step of a (B, L, ...), or `before` where there is none."""
    last = xp.reshape(last_real(xp, xp.reshape(a, (*a.shape[:2], -1)), lengths), before.shape)
    return last if lengths is None else xp.where((lengths > 0)[:, None, None, None], last, before)
