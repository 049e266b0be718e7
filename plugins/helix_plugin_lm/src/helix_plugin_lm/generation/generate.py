"""Streaming generation: the prompt is read at once, then a step per token, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import GenerationError
from helix_core.tree import tree_map
from helix_plugin_lm.generation.reading import check_prompt, read
from helix_plugin_lm.generation.row import Row, count
from helix_plugin_lm.generation.sampling import Sampling
from helix_plugin_lm.generation.saved_state import SavedState
from helix_plugin_lm.generation.stopping import CONTEXT, Stopping
from helix_plugin_lm.tokenizers import BYTES, Tokenizer

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable
    from helix_plugin_lm.models.language_model import LanguageModel


class Generation(Iterator[bytes]):
    """A text that is written as it is iterated over; see `generate`.

    finish    why it has ended, one of the reasons in `helix_plugin_lm.generation.stopping`; None while it goes on
    tokens    number of tokens that the model has written
    """

    def __init__(
        self,
        model: LanguageModel,
        backend: Backend,
        F: OpTable,
        params: Mapping[str, Any],
        prompt: bytes,
        sampling: Sampling,
        stopping: Stopping,
        tokenizer: Tokenizer,
        seed: int | None,
        weights: str,
        resume: SavedState | None,
    ) -> None:
        self._backend, self._limit = backend, model.context
        state: Any = None
        if resume is None:
            fed, self._position = tokenizer.prompt(prompt), 0
            # The token in front of a text is no part of it.
            counts = count(fed[1:] if fed[0] == tokenizer.start else fed, tokenizer.vocab_size)
        else:
            fed, self._position = tokenizer.encode(prompt), resume.position
            counts = resume.counts + count(fed, tokenizer.vocab_size)
            state = tree_map(backend.asarray, resume.state)
            self._logits = resume.logits
        check_prompt(model, tokenizer, len(fed), self._position)
        if len(fed):
            self._logits, state = read(model, backend, F, params, fed, state)
            self._position += len(fed)
        self._decoder = backend.decoder(model, F, params, weights=weights)
        self._decoder.load(state)
        rng = np.random.default_rng(0 if seed is None else seed)
        if resume is not None and seed is None:
            rng.bit_generator.state = resume.rng
        held = resume.stream if resume is not None else ((), 0)
        self._row = Row(tokenizer, sampling, stopping, rng, counts, held, fed)
        self._pending = False

    @property
    def finish(self) -> str | None:
        """Why it ended: what `Stopping` names; None while it goes on."""
        return self._row.finish

    @property
    def tokens(self) -> int:
        """How many tokens are written."""
        return self._row.written

    def __next__(self) -> bytes:
        while self._row.finish is None:
            if self._feed():
                text = self._row.advance(self._logits)
                self._pending = True
            else:
                text = self._row.end(CONTEXT)
            if text:
                return text
        raise StopIteration

    def save(self) -> SavedState:
        """Where this text stands, after every token that the model has written.

        Raises GenerationError if its state cannot take in the last one.
        """
        if not self._feed():
            raise GenerationError(f"the state cannot be saved: it is full after {self._position:,} tokens")
        state = tree_map(lambda array: self._backend.to_numpy(array).copy(), self._decoder.state())
        row = self._row
        ids, given = row.stream.state()
        rng = dict(row.rng.bit_generator.state)
        return SavedState(state, self._logits.copy(), row.counts.copy(), self._position, rng, (tuple(ids), given))

    def _feed(self) -> bool:
        """Give the model the last token, if it has not had it; False if its state is full."""
        if self._pending:
            if self._position == self._limit:
                return False
            self._logits = self._decoder.step(np.array([self._row.token]))[0]
            self._position += 1
            self._pending = False
        return True


def generate(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    prompt: bytes = b"",
    *,
    sampling: Sampling | None = None,
    stopping: Stopping | None = None,
    tokenizer: Tokenizer = BYTES,
    seed: int | None = None,
    weights: str = "float32",
    resume: SavedState | None = None,
) -> Generation:
    """Text that continues `prompt` at the start of a document: an iterator of pieces, whole characters each.

    Equal seeds (default 0) give equal texts on one backend. F should be bound with mode "infer". `weights` is the
    format that the backend's decoder keeps weights in ("float32", "bfloat16", "int8"); the prompt is read with the
    parameters as they are. With `resume`, a state that `Generation.save` gave, the text goes on from there, after the
    prompt if there is one; without a seed, with the random numbers that were next.

    Raises ComponentUnavailable for a format that the backend does not have, ConfigError for the tokenizer of another
    model, UsageError for a prompt longer than the model's context, TokenizerError for one that cannot be encoded; while
    iterating, GenerationError for logits that are not finite.
    """
    return Generation(
        model,
        backend,
        F,
        params,
        prompt,
        sampling or Sampling(),
        stopping or Stopping(),
        tokenizer,
        seed,
        weights,
        resume,
    )
