"""A residual block that can be run backwards, so that training need not keep what happens inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_core.kinds.layer import Params, State
from helix_core.ops.dropout import fold
from helix_plugin_lm.models.block import Block

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable

Array = Any


class ReversibleBlock(Block):
    """Two streams, each of which the other one's layer adds to.

        y_1 = x_1 + mixer(norm(x_2)),  y_2 = x_2 + mlp(norm(y_1))
        x_2 = y_2 - mlp(norm(y_1)),    x_1 = y_1 - mixer(norm(x_2))

    Source: Gomez, Ren, Urtasun and Grosse, The Reversible Residual Network, 2017; Kitaev, Kaiser and Levskaya,
    Reformer, 2020.
    """

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
        """The streams x_1 and x_2 (B, L, D) -> y_1 and y_2; the first block gets the embeddings as both."""
        first, second = x, x if residual is None else residual
        rows = {"reset": reset, "lengths": lengths, "key": key, "losses": losses}
        before = {"mixer": None, "mlp": None} if state is None else state
        mixed, mixer_state = self._branch(F, p, "mixer", second, before["mixer"], **rows)
        first = first + mixed
        transformed, mlp_state = self._branch(F, p, "mlp", first, before["mlp"], **rows)
        second = second + transformed
        return first, second, None if state is None else {"mixer": mixer_state, "mlp": mlp_state}

    def invert(
        self,
        F: OpTable,
        p: dict[str, Params],
        first: Array,
        second: Array,
        *,
        reset: Array | None,
        key: Array | None = None,
    ) -> tuple[Array, Array]:
        """The streams y_1 and y_2 (B, L, D) -> x_1 and x_2, up to rounding."""
        rows = {"reset": reset, "lengths": None, "key": key, "losses": None}
        transformed, _ = self._branch(F, p, "mlp", first, None, **rows)
        second = second - transformed
        mixed, _ = self._branch(F, p, "mixer", second, None, **rows)
        return first - mixed, second

    def _branch(
        self,
        F: OpTable,
        p: dict[str, Params],
        part: str,
        stream: Array,
        state: State | None,
        *,
        reset: Array | None,
        lengths: Array | None,
        key: Array | None,
        losses: list[Array] | None,
    ) -> tuple[Array, State | None]:
        """What a part, behind its norm, adds to the other stream, and the part's next state."""
        normed, _ = self.norm.apply(F, p[f"{part}_norm"], stream)
        y, after, extra = self.parts[part].apply_with_loss(
            F, p[part], normed, state=state, reset=reset, lengths=lengths
        )
        if losses is not None and extra is not None:
            losses.append(extra)
        if key is not None:
            y = self._dropped(F, y, fold(F.xp, key, list(self.parts).index(part)))
        return y, after
