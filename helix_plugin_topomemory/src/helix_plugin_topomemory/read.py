"""The layer `memory_read`: a memory of the last steps inside a model, read by similarity and importance."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from helix_core.kinds.layer import Layer, LayerConfig, Params, State
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.ops import OpTable, device_of
from helix_core.ops.quarantine import quarantined, released

Array = Any


class MemoryReadConfig(LayerConfig):
    """Options of the reading layer."""

    d_key: int = Field(32, gt=0, description="width of keys and queries")
    slots: int = Field(128, gt=1, description="steps that are remembered")
    read: int = Field(16, gt=0, description="slots that one read takes")
    sharpness: float = Field(10.0, gt=0, description="initial factor on scores before the softmax")


class MemoryRead(Layer[MemoryReadConfig]):
    """Every step stores a key, a value and an importance, and reads the best of the slots stored before it.

        score_s = λ cos(W_q x_t, W_k x_s) + (1 - λ) S_s,   S_s = sigmoid(w_s x_s),  λ = sigmoid(mix)
        y_t     = W_o (silu(W_g x_t) Σ_s a_s W_v x_s),     a ∝ relu(exp(β score_s) - exp(β score_next))

    over the `read` best slots s; `next` is the best slot left out, so that the output stays continuous where slots
    change places. β and λ are learned. Values are what came after the key: step s offers its value with the key of
    step s-1, so that a match recalls what followed.
    State: slots of keys (B, M, K), values (B, M, D), importance (B, M), whether a slot is filled (B, M), and the last
    key (B, K) with its importance (B,) and whether there is one (B,).
    Source: Wu, Rabe, Hutchins and Szegedy, Memorizing Transformers, 2022, for reading by top-k; the score is that of
    the memory `topological`.

    >>> from helix_core import create
    >>> layer = create("layer", "memory_read", d_model=64)
    >>> layer.cost(1024).parameters, layer.cost(1024).state_bytes
    (16450, 50312)
    """

    def param_specs(self) -> dict[str, ParamSpec]:
        c = self.config
        return {
            "query.weight": ParamSpec((c.d_key, c.d_model), fan_in()),
            "key.weight": ParamSpec((c.d_key, c.d_model), fan_in()),
            "value.weight": ParamSpec((c.d_model, c.d_model), fan_in()),
            "gate.weight": ParamSpec((c.d_model, c.d_model), fan_in()),
            "importance.weight": ParamSpec((1, c.d_model), fan_in()),
            "out.weight": ParamSpec((c.d_model, c.d_model), fan_in(), residual=True),
            "mix": ParamSpec((1,), constant(math.log(4.0)), weight_decay=False),  # λ = 0.8
            "log_sharpness": ParamSpec((1,), constant(math.log(c.sharpness)), weight_decay=False),
        }

    def mixing_flops(self, length: int) -> float:
        # Every step is compared with the slots before and with all steps, and then those out of reach are closed.
        return 2 * (self.config.slots + length) * (self.config.d_key + self.config.d_model)

    def init_state(self, F: OpTable, batch: int) -> State:
        c = self.config
        return {
            "keys": F.zeros(batch, c.slots, c.d_key),
            "values": F.zeros(batch, c.slots, c.d_model),
            "importance": F.zeros(batch, c.slots),
            "filled": F.zeros(batch, c.slots),
            "last_key": F.zeros(batch, c.d_key),
            "last_importance": F.zeros(batch),
            "last_filled": F.zeros(batch),
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
        B, L, M = x.shape[0], x.shape[1], c.slots
        before = self.init_state(F, B) if state is None else state
        query, key = (_unit(xp, F.linear(x, p[f"{name}.weight"])) for name in ("query", "key"))
        value = F.linear(x, p["value.weight"])
        importance = F.sigmoid(F.linear(x, p["importance.weight"]))[..., 0]

        # Slot s pairs the key of the step before with the value of this one; a document's first step has no such key.
        def shifted(last: Array, rows: Array) -> Array:
            return xp.concat([xp.expand_dims(last, axis=1), rows[:, :-1]], axis=1)

        own = xp.ones_like(importance)
        started = xp.zeros_like(importance) if reset is None else xp.astype(reset, x.dtype)
        filled = shifted(before["last_filled"], own) * (1 - started)
        keys = xp.concat([before["keys"], shifted(before["last_key"], key)], axis=1)
        values = xp.concat([before["values"], value], axis=1)
        strength = xp.concat([before["importance"], shifted(before["last_importance"], importance)], axis=1)
        filled = xp.concat([before["filled"], filled], axis=1)

        # Documents are numbered; what is carried in belongs to number 0.
        number = xp.cumulative_sum(started, axis=1)
        numbers = xp.concat([xp.zeros_like(before["filled"]), number], axis=1)
        at, slot = xp.arange(L, device=device_of(x))[:, None] + M, xp.arange(M + L, device=device_of(x))[None, :]
        near = xp.logical_and(slot <= at, slot > at - M)[None]
        open_ = xp.logical_and(near, numbers[:, None, :] == number[:, :, None])
        open_ = xp.logical_and(open_, filled[:, None, :] > 0)

        # A weight of 0 does not hide a slot that holds no numbers.
        (query,), silent = quarantined(xp, query)
        (sound_keys, sound_values), lost = quarantined(xp, keys, values)
        mix = F.sigmoid(p["mix"])
        query = xp.astype(query, sound_keys.dtype, copy=False)
        score = mix * xp.matmul(query, xp.matrix_transpose(sound_keys)) + (1 - mix) * strength[:, None, :]
        found = self._read(F, p, score, open_, sound_values)
        reached = xp.any(xp.logical_and(open_, lost[:, None, :, 0] > 0), axis=-1, keepdims=True)
        found = released(xp, found, silent + xp.astype(reached, silent.dtype))
        y = F.silu(F.linear(x, p["gate.weight"])) * found
        y = F.linear(y, p["out.weight"])
        if state is None:
            return y, None
        stop = (
            xp.full((B,), L, dtype=xp.int64, device=device_of(x)) if lengths is None else xp.astype(lengths, xp.int64)
        )
        last_number = _at(xp, xp.concat([xp.zeros_like(number[:, :1]), number], axis=1), stop[:, None])
        # After n steps the slots are n..n+M-1 of all, and those of an earlier document are empty.
        window = stop[:, None] + xp.arange(M, dtype=xp.int64, device=device_of(x))[None, :]
        kept = _at(xp, filled, window) * xp.astype(_at(xp, numbers, window) == last_number, x.dtype)

        def held(a: Array) -> Array:
            rows = _at(xp, a, window)
            return xp.where(kept[..., None] > 0 if len(a.shape) == 3 else kept > 0, rows, xp.zeros_like(rows))

        return y, {
            "keys": held(keys),
            "values": held(values),
            "importance": held(strength),
            "filled": kept,
            "last_key": _at(xp, _after(xp, before["last_key"], key), stop[:, None])[:, 0],
            "last_importance": _at(xp, _after(xp, before["last_importance"], importance), stop[:, None])[:, 0],
            "last_filled": _at(xp, _after(xp, before["last_filled"], own), stop[:, None])[:, 0],
        }

    def _read(self, F: OpTable, p: Params, score: Array, open_: Array, values: Array) -> Array:
        """Scores (B, L, M+L), which slots may be read, values (B, M+L, D) -> what is read (B, L, D)."""
        xp, c = F.xp, self.config
        closed = xp.full_like(score, -10.0)  # below every score, which lies in -1..1
        score = xp.where(open_, score, closed)
        ranked = xp.sort(score, axis=-1)
        left_out = ranked[..., -min(c.read + 1, score.shape[-1])][..., None]
        best = ranked[..., -1:]
        beta = xp.exp(p["log_sharpness"])
        weight = xp.exp(beta * (score - best)) - xp.exp(beta * (left_out - best))
        weight = xp.where(xp.logical_and(open_, score > left_out), weight, xp.zeros_like(weight))
        total = xp.sum(weight, axis=-1, keepdims=True)
        # Nothing to read gives zeros; the small term also keeps ties of all slots from dividing by zero.
        return xp.matmul(weight / (total + 1e-6), values)


def _unit(xp: Any, x: Array) -> Array:
    return x / xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def _after(xp: Any, last: Array, rows: Array) -> Array:
    """Rows (B, L, ...) behind what was last before them: entry n is the last of n steps."""
    return xp.concat([xp.expand_dims(last, axis=1), rows], axis=1)


def _at(xp: Any, x: Array, index: Array) -> Array:
    """x (B, T) or (B, T, D) at index (B, K) along T."""
    if len(x.shape) == 3:
        index = xp.broadcast_to(index[..., None], (*index.shape, x.shape[2]))
    return xp.take_along_axis(x, index, axis=1)
