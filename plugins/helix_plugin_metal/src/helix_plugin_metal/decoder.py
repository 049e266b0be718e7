"""Decoding: the model's own step, evaluated whole, so that no graph grows from token to token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from helix_core.backends.decoder import PlainDecoder
from helix_core.errors import UsageError
from helix_core.tree import tree_map


class MetalDecoder(PlainDecoder):
    """One evaluation a step, of the logits and of the state: not all of a state is needed for the next logits."""

    def step(self, tokens: np.ndarray) -> np.ndarray:
        fed = mx.array(self._checked(tokens)[:, None])
        logits, after = self._model.apply(self._F, self._params, fed, state=self._state)
        logits = logits[:, -1].astype(mx.float32)
        mx.eval(logits, after)
        self._state = after
        return np.array(logits)

    def reorder(self, rows: Sequence[int]) -> None:
        if len(rows) != self.batch or not all(0 <= row < self.batch for row in rows):
            raise UsageError(f"rows must be {self.batch} numbers within 0..{self.batch - 1}, not {list(rows)}")
        index = mx.array(list(rows))
        self.load(tree_map(lambda array: mx.take(array, index, axis=0), self._state))

    def state(self) -> Any:
        """Arrays are never written to, so the state itself is a copy of it."""
        return self._state
