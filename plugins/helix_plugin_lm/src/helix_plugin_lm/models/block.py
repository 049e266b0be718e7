"""One residual block: norm -> mixer -> add [-> norm -> mlp -> add]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_core.kinds.layer import Layer, Params, State
from helix_core.kinds.params import ParamSpec, constant
from helix_core.ops.dropout import fold

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable

Array = Any


class Norm:
    """The normalisation in front of a layer, with its parameters."""

    def __init__(self, kind: str, d_model: int, eps: float) -> None:
        self.kind, self.d_model, self.eps = kind, d_model, eps

    def param_specs(self) -> dict[str, ParamSpec]:
        """The weights of the norm; a bias in a layer norm."""
        # A weight that is zero-centred may decay: the norm decays to that without weights (Qwen3-Next).
        centered = self.kind == "zero_centered_rms_norm"
        specs = {"weight": ParamSpec((self.d_model,), constant(0.0 if centered else 1.0), weight_decay=centered)}
        if self.kind == "layer_norm":
            specs["bias"] = ParamSpec((self.d_model,), constant(0.0), weight_decay=False)
        return specs

    def apply(self, F: OpTable, p: Params, x: Array, residual: Array | None = None) -> tuple[Array, Array]:
        """x, residual (B, L, D) -> the norm of their sum, and the sum; without a residual, of x."""
        if self.kind == "layer_norm":
            x = x if residual is None else x + residual
            return F.layer_norm(x, p["weight"], p["bias"], eps=self.eps), x
        weight = p["weight"] + 1 if self.kind == "zero_centered_rms_norm" else p["weight"]
        if residual is None:
            return F.rms_norm(x, weight, eps=self.eps), x
        y, total = F.add_rms_norm(x, residual, weight, eps=self.eps)
        return y, total


class Block:
    """A mixer and, if the model has one, an mlp, each behind a norm and added to the residual stream."""

    def __init__(
        self,
        mixer: Layer[Any],
        mlp: Layer[Any] | None,
        norm: Norm,
        *,
        dropout: float = 0.0,
        skip: float = 0.0,
    ) -> None:
        self.norm, self.dropout, self.skip = norm, dropout, skip
        self.parts: dict[str, Layer[Any]] = {"mixer": mixer} | ({"mlp": mlp} if mlp else {})

    def param_specs(self) -> dict[str, ParamSpec]:
        """Those of every part and of its norm, with the part's name in front."""
        specs: dict[str, ParamSpec] = {}
        for part, layer in self.parts.items():
            specs |= {f"{part}_norm.{name}": spec for name, spec in self.norm.param_specs().items()}
            specs |= {f"{part}.{name}": spec for name, spec in layer.param_specs().items()}
        return specs

    def init_state(self, F: OpTable, batch: int) -> State:
        """The state of each part before any input."""
        return {part: layer.init_state(F, batch) for part, layer in self.parts.items()}

    def apply(
        self,
        F: OpTable,
        p: dict[str, Params],
        x: Array,
        residual: Array | None,
        *,
        state: State | None,
        reset: Array | None,
        lengths: Array | None,
        key: Array | None = None,
        losses: list[Array] | None = None,
        shared: dict[str, Array] | None = None,
    ) -> tuple[Array, Array, State | None]:
        """What the part before wrote, and the stream it is yet to be added to -> the same of the last part.

        All (B, L, D); the first block gets the embeddings and no stream. The addition waits for the next norm, which
        does both in one pass. `p` holds the parameters of each part and of its norm. With a random key (1,), parts of
        what is written are dropped; what layers add to the training loss is appended to `losses`. `shared` is for the
        layers that declare `shares`.
        """
        after: State = {}
        for i, (part, layer) in enumerate(self.parts.items()):
            normed, residual = self.norm.apply(F, p[f"{part}_norm"], x, residual)
            x, after[part], extra = layer.apply_with_loss(
                F,
                p[part],
                normed,
                state=None if state is None else state[part],
                reset=reset,
                lengths=lengths,
                **({"shared": shared} if layer.shares else {}),
            )
            if losses is not None and extra is not None:
                losses.append(extra)
            if key is not None:
                x = self._dropped(F, x, fold(F.xp, key, i))
        return x, residual, None if state is None else after

    def _dropped(self, F: OpTable, x: Array, key: Array) -> Array:
        """Dropout of single values, and of whole rows (stochastic depth, Huang et al., 2016)."""
        x = F.dropout(x, key, rate=self.dropout)
        if self.skip:
            rows = F.xp.ones_like(x[:, :1, :1])
            x = x * F.dropout(rows, fold(F.xp, key, 0), rate=self.skip)
        return x
