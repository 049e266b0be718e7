"""Decoding: a step of the model as one compiled program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from helix_core.kinds.decoder import Decoder

if TYPE_CHECKING:
    from helix_core.kinds.backend import Params
    from helix_core.kinds.decoder import DecodableModel
    from helix_core.ops import OpTable


class JaxDecoder(Decoder):
    """One program a step; the state's memory is handed over to the next state ("donated")."""

    def __init__(self, model: DecodableModel, F: OpTable, params: Params, batch: int) -> None:
        super().__init__(batch, "float32", model.vocab_size)
        self._params, self._model, self._F = params, model, F

        def step(params: Params, tokens: Any, state: Any) -> tuple[Any, Any]:
            logits, after = model.apply(F, params, tokens, state=state)
            return logits[:, -1], after

        self._state: Any = None
        self._room: int | None = None
        self._step = jax.jit(step, donate_argnums=2)
        self.load(model.init_state(F, batch))

    def step(self, tokens: np.ndarray) -> np.ndarray:
        checked = self._checked(tokens)
        if self._room is not None:
            if self._room < 1:
                raise self._full()
            self._room -= 1
        fed = jnp.asarray(checked[:, None].astype(np.int32))
        logits, self._state = self._step(self._params, fed, self._state)
        return np.asarray(logits, np.float32)

    def load(self, state: Any) -> None:
        self._state = _copy(state)
        self._room = self._model.room(self._F, state)

    def state(self) -> Any:
        return _copy(self._state)


def _copy(state: Any) -> Any:
    """Every array in memory of its own: two that share it could not both be donated."""
    return jax.tree.map(lambda a: jnp.array(a, copy=True), state)
