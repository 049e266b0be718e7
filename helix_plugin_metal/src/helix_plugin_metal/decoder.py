"""Decoding: the model's own step, evaluated whole, so that no graph grows from token to token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from helix_core.kinds.decoder import Decoder
from helix_plugin_metal.device import on_cpu

if TYPE_CHECKING:
    from helix_core.kinds.backend import Params
    from helix_core.kinds.decoder import DecodableModel
    from helix_core.ops import OpTable


class MetalDecoder(Decoder):
    """One evaluation a step, of the logits and of the state: not all of a state is needed for the next logits.

    On a GPU, the step is compiled: to build its graph anew would take longer than to compute it.
    """

    def __init__(self, model: DecodableModel, F: OpTable, params: Params, batch: int) -> None:
        super().__init__(batch, "float32", model.vocab_size)
        self._params, self._model, self._F = dict(params), model, F

        def run(params: Params, tokens: Any, state: Any) -> tuple[Any, Any]:
            logits, after = model.apply(F, params, tokens, state=state)
            return logits[:, -1].astype(mx.float32), after

        self._state: Any = None
        self._room: int | None = None
        self._run = run if on_cpu() else mx.compile(run)
        self.load(model.init_state(F, batch))

    def step(self, tokens: np.ndarray) -> np.ndarray:
        fed = mx.array(self._checked(tokens)[:, None])
        if self._room is not None:
            if self._room < 1:
                raise self._full()
            self._room -= 1
        logits, self._state = self._run(self._params, fed, self._state)
        mx.eval(logits, self._state)
        return np.array(logits)

    def load(self, state: Any) -> None:
        self._state = state  # arrays of a state are never written to
        self._room = self._model.room(self._F, state)

    def state(self) -> Any:
        return self._state

    def _index(self, rows: np.ndarray) -> mx.array:
        return mx.array(rows)
