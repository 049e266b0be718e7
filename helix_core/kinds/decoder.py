"""Decoding: a model with its parameters and its state, fed one token of every row at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from helix_core.errors import UsageError
from helix_core.tree import tree_map

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable

WEIGHTS = ("float32", "bfloat16", "int8")
"""Formats that weights can be kept in while decoding; a backend may not have all of them."""


class DecodableModel(Protocol):
    """What a decoder asks of a model: a step over the op table, and the state that it carries."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens there are."""

    def init_state(self, F: OpTable, batch: int) -> Any:
        """The state before the first token of `batch` rows."""

    def apply(self, F: OpTable, params: Mapping[str, Any], tokens: Any, *, state: Any) -> tuple[Any, Any]:
        """Integer tokens (B, L) -> logits (B, L, V) and the state after them."""

    def room(self, F: OpTable, state: Any) -> int | None:
        """How many more tokens fit into the fullest row of a state; None for no limit."""


class ArrayHost(Protocol):
    """What `PlainDecoder` asks of a backend."""

    def inference(self) -> AbstractContextManager[Any]:
        """A context in which no gradient is recorded."""

    def asarray(self, array: np.ndarray) -> Any:
        """An array of the backend."""

    def to_numpy(self, array: Any) -> np.ndarray:
        """The values of an array."""


class Decoder(ABC):
    """Steps of a language model for `batch` rows, one token each; made by `Backend.decoder`.

    A decoder holds its rows' state. It starts with the model's initial one; `load` takes any that the model's own
    `apply` returned (after a prompt), and `state` gives it back.
    """

    def __init__(self, batch: int, weights: str, vocab_size: int) -> None:
        self.batch, self.weights, self.vocab_size = batch, weights, vocab_size

    @abstractmethod
    def step(self, tokens: np.ndarray) -> np.ndarray:
        """Feed integer tokens (B,) and return the logits (B, V) after them, float32.

        Raises UsageError for tokens of another shape or outside the vocabulary; the state is then as it was.
        """

    @abstractmethod
    def load(self, state: Any) -> None:
        """Continue from a copy of this state."""

    @abstractmethod
    def state(self) -> Any:
        """A copy of the state: the same pytree as the model's own."""

    def _full(self) -> UsageError:
        return UsageError(
            "the model's context is full: its attention holds no more tokens of a document",
            hint="generate fewer, or build the model with a larger `max_length` or with a `window`",
        )

    def reorder(self, rows: Sequence[int]) -> None:
        """Give each row the state of another, row i that of `rows[i]`; several may go on from the same one."""
        if len(rows) != self.batch or not all(0 <= row < self.batch for row in rows):
            raise UsageError(f"rows must be {self.batch} numbers within 0..{self.batch - 1}, not {list(rows)}")
        index = self._index(np.asarray(rows, dtype=np.int64))
        self.load(tree_map(lambda array: array[index], self.state()))

    def _index(self, rows: np.ndarray) -> Any:
        """Numbers of rows as what the arrays of the state are indexed with."""
        return rows

    def _checked(self, tokens: np.ndarray) -> np.ndarray:
        tokens = np.asarray(tokens)
        if tokens.shape != (self.batch,) or not np.issubdtype(tokens.dtype, np.integer):
            raise UsageError(
                f"a step takes {self.batch} integer tokens, not {tokens.dtype} of shape {tokens.shape}",
                hint="one token for each row that the decoder was made for",
            )
        if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= self.vocab_size:
            raise UsageError(f"tokens must be within 0..{self.vocab_size - 1}")
        return tokens.astype(np.int64)


class PlainDecoder(Decoder):
    """The model's own `apply` for every token: works on every backend, with weights as they are."""

    def __init__(
        self, model: DecodableModel, backend: ArrayHost, F: OpTable, params: Mapping[str, Any], batch: int
    ) -> None:
        super().__init__(batch, "float32", model.vocab_size)
        self._model, self._backend, self._F, self._params = model, backend, F, params
        with backend.inference():
            self._state: Any = model.init_state(F, batch)

    def step(self, tokens: np.ndarray) -> np.ndarray:
        checked = self._checked(tokens)
        with self._backend.inference():
            fed = self._backend.asarray(checked[:, None])
            logits, self._state = self._model.apply(self._F, self._params, fed, state=self._state)
            return self._backend.to_numpy(logits[:, -1])

    def load(self, state: Any) -> None:
        self._state = state  # arrays of a state are never written to

    def state(self) -> Any:
        return self._state
