"""S4: a time-invariant state-space block whose state matrix is diagonal plus low rank, from HiPPO-LegS."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in, normal, values
from helix_core.ops import OpTable, device_of
from helix_plugin_ssm._hippo_dplr import DPLR, extend, hippo_dplr, moved

Array = Any


class S4Config(LayerConfig):
    """Options of the S4 block; the defaults are the paper's."""

    d_state: int = Field(64, gt=1, le=4096, description="states per channel, N: N/2 conjugate pairs")
    dt_min: float = Field(0.001, gt=0, description="smallest initial step size")
    dt_max: float = Field(0.1, gt=0, description="largest initial step size")
    lr_scale: float = Field(0.25, gt=0, description="factor on the learning rate of Δ, λ, P and B")

    @field_validator("d_state")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even: states come in conjugate pairs")
        return value


class S4(Layer[S4Config]):
    """DPLR SSM per channel -> skip -> GELU -> linear -> GLU.

        A = diag(λ) - P P*,  Ā = (1 - Δ/2 A)⁻¹ (1 + Δ/2 A),  B̄ = (1 - Δ/2 A)⁻¹ Δ B
        h_t = Ā h_{t-1} + B̄ u_t,  y_t = 2 Re(C h_t) + D u_t,  K_l = 2 Re(C Āˡ B̄)

    A starts as HiPPO-LegS in the basis where it is normal plus low rank (NPLR). All at once the layer is one long
    convolution with K; a step costs O(N) by Woodbury's identity. K is the paper's, computed differently: the paper's
    Cauchy kernel gives K from C̃ = C (1 - Āᴸ), trained in place of C for one length, and needs Āᴸ for any other. Here
    C is the parameter and every length is exact: K = (C Ā^{iT}) (Āʲ B̄) with l = i T + j and T about √L, from powers
    of Ā by squaring, none of which grows.
    State: ssm (B, D, N), [Re h; Im h].
    Source: Gu, Goel and Ré, Efficiently Modeling Long Sequences with Structured State Spaces, 2022; P = Q as in Goel,
    Gu, Donahue and Ré, It's Raw! Audio Generation with State-Space Models, 2022.

    >>> from helix_core import create
    >>> layer = create("layer", "s4", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (24832, 16384)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        D, n = c.d_model, c.d_state // 2
        slow = functools.partial(ParamSpec, weight_decay=False, lr_scale=c.lr_scale)

        def low_rank() -> np.ndarray:
            return np.stack([hippo_dplr(c.d_state)[1], np.zeros(n)], axis=-1)

        return {
            "log_dt": slow((D,), self._initial_log_dt),
            "A_log": slow((D, n), values(lambda: np.log(-hippo_dplr(c.d_state)[0].real))),
            "A_imag": slow((D, n), values(lambda: hippo_dplr(c.d_state)[0].imag)),
            "P": slow((D, n, 2), values(low_rank)),
            "B": slow((D, n, 2), values(lambda: math.sqrt(2) * low_rank())),
            "C": ParamSpec((D, n, 2), normal(math.sqrt(0.5)), weight_decay=False),
            "D": ParamSpec((D,), normal(1.0), weight_decay=False),
            "out_proj.weight": ParamSpec((2 * D, D), fan_in(), residual=True),
            "out_proj.bias": ParamSpec((2 * D,), constant(0.0), weight_decay=False),
        }

    def _initial_log_dt(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(math.log(self.config.dt_min), math.log(self.config.dt_max), shape)

    def init_state(self, F: OpTable, batch: int) -> State:
        return {"ssm": F.zeros(batch, self.config.d_model, self.config.d_state)}

    def mixing_flops(self, length: int) -> float:
        """Of the recurrence, per token: the definition's, whatever computes it."""
        return 13.0 * self.config.d_model * self.config.d_state

    def system(self, F: OpTable, p: Params) -> tuple[DPLR, Array, Array]:
        """Ā, B̄ (D, N) and C (D, N), for which y = C · h."""
        xp = F.xp
        dt = xp.exp(p["log_dt"])
        A = DPLR.bilinear(xp, dt, -xp.exp(p["A_log"]), p["A_imag"], p["P"])
        B = A.resolve(dt[:, None] * xp.concat([p["B"][..., 0], p["B"][..., 1]], axis=-1))
        return A, B, 2 * xp.concat([p["C"][..., 0], -p["C"][..., 1]], axis=-1)

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
        system, after = self.system(F, p), None
        if state is None:
            y = F.long_conv(x, Chunk(F, system, x.shape[1]).filter, reset=reset, lengths=lengths)
        elif x.shape[1] == 1:
            y, last = _step(F.xp, system, x, state["ssm"], reset, lengths)
            after = {"ssm": last}
        else:
            chunk = Chunk(F, system, x.shape[1])
            y = F.long_conv(x, chunk.filter, reset=reset, lengths=lengths)
            y = y + chunk.response(state["ssm"], reset)
            after = {"ssm": chunk.last_state(x, state["ssm"], reset, lengths)}
        y = F.gelu(y + p["D"] * x)
        y = F.linear(y, p["out_proj.weight"], p["out_proj.bias"])
        width = self.config.d_model
        return y[..., :width] * F.sigmoid(y[..., width:]), after


def _step(
    xp: Any, system: tuple[DPLR, Array, Array], u: Array, h: Array, reset: Array | None, lengths: Array | None
) -> tuple[Array, Array]:
    """One step: u (B, 1, D), h (B, D, N) -> y (B, 1, D), h."""
    A, B, C = system
    before = h if reset is None else xp.where(reset[:, :1, None], xp.zeros_like(h), h)
    after = A.advance(before) + B * u[:, 0, :, None]
    y = xp.sum(C * after, axis=-1)[:, None, :]
    return y, after if lengths is None else xp.where(lengths[:, None, None] > 0, after, h)


class Chunk:
    """`length` steps at once: I blocks of T, both powers of two."""

    def __init__(self, F: OpTable, system: tuple[DPLR, Array, Array], length: int) -> None:
        A, B, C = system
        xp = self.xp = F.xp
        self.length = length
        bits = (length - 1).bit_length()
        self.inner = bits // 2
        self.A, self.changes = A, A.changes(F.asarray(np.eye(B.shape[1] // 2)), max(bits, 1))
        self.T, self.I = 1 << self.inner, 1 << (bits - self.inner)
        self.within, self.between = self.changes[: self.inner], self.changes[self.inner : bits]
        self.columns = extend(xp, B[:, None, :], self.within)  # (D, T, N): Āʲ B̄
        self.C = C[:, None, :]
        rows = extend(xp, self.C, [xp.matrix_transpose(a) for a in self.between])  # (D, I, N): C Ā^{iT}
        table = xp.matmul(rows, xp.matrix_transpose(self.columns))
        self.filter = xp.matrix_transpose(xp.reshape(table, (C.shape[0], -1)))[:length, :]
        """K (L, D)."""

    def response(self, h: Array, reset: Array | None) -> Array:
        """What a state h (B, D, N) before the first step adds to the outputs (B, L, D) of its document."""
        xp = self.xp
        batch, D, _ = h.shape
        # (D, B, N) -> (D, I B, N): the state in front of every block, were there no input
        starts = extend(xp, xp.permute_dims(h, (1, 0, 2)), self.between)
        first = moved(xp, self.C, xp.matrix_transpose(self.changes[0]))
        rows = extend(xp, first, [xp.matrix_transpose(a) for a in self.within])  # (D, T, N): C Ā^{j+1}
        y = xp.reshape(xp.matmul(starts, xp.matrix_transpose(rows)), (D, self.I, batch, self.T))
        y = xp.reshape(xp.permute_dims(y, (2, 1, 3, 0)), (batch, self.I * self.T, D))[:, : self.length, :]
        if reset is None:
            return y
        old = xp.cumulative_sum(xp.astype(reset, xp.int64), axis=1) == 0
        return xp.where(old[..., None], y, xp.zeros_like(y))

    def last_state(self, u: Array, h: Array, reset: Array | None, lengths: Array | None) -> Array:
        """The state (B, D, N) after u (B, L, D), from h before it."""
        xp = self.xp
        batch, length, D = u.shape
        whole = self.I * self.T
        ends = xp.full((batch,), length, dtype=xp.int64, device=device_of(u)) if lengths is None else lengths
        keep = xp.arange(length, dtype=ends.dtype, device=device_of(u))[None, :] < ends[:, None]
        if reset is not None:
            starts = xp.astype(xp.logical_and(reset, keep), xp.int64)
            total = xp.sum(starts, axis=1, keepdims=True)
            keep = xp.logical_and(keep, xp.cumulative_sum(starts, axis=1) == total)
            h = xp.where(total[:, :, None] > 0, xp.zeros_like(h), h)
        before_last = xp.clip(ends - 1, 0, None)
        h = xp.permute_dims(h, (1, 0, 2))
        for i, change in enumerate(self.changes):  # Ā^(L-1) or less by its bits; the last step by itself
            odd = xp.bitwise_and(before_last, xp.full_like(ends, 1 << i)) > 0
            h = xp.where(odd[None, :, None], moved(xp, h, change), h)
        h = xp.permute_dims(h, (1, 0, 2))
        h = xp.where(ends[:, None, None] > 0, self.A.advance(h), h)
        # Rows are moved to end together; zeros in front of them add nothing.
        u = xp.where(keep[..., None], u, xp.zeros_like(u))
        source = xp.arange(whole, dtype=ends.dtype, device=device_of(u))[None, :] - whole + ends[:, None]
        index = xp.clip(source, 0, length - 1)
        u = xp.take_along_axis(u, xp.broadcast_to(index[..., None], (batch, whole, D)), axis=1)
        u = xp.where(source[..., None] >= 0, u, xp.zeros_like(u))
        blocks = xp.reshape(xp.permute_dims(u, (2, 0, 1)), (D, batch * self.I, self.T))
        sums = xp.matmul(blocks, xp.flip(self.columns, axis=1))
        for change in self.between:
            pairs = xp.reshape(sums, (D, -1, 2, sums.shape[-1]))
            sums = moved(xp, pairs[:, :, 0, :], change) + pairs[:, :, 1, :]
        return h + xp.permute_dims(sums, (1, 0, 2))
