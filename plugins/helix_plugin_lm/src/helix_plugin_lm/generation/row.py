"""One text that is being written: what it draws, what it has said, and whether it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from helix_plugin_lm.generation.sampling import Sampling
from helix_plugin_lm.generation.stopping import LENGTH, STOP_STRING, STOP_TOKEN, Stopping, StopScanner
from helix_plugin_lm.tokenizers import Tokenizer
from helix_plugin_lm.tokenizers.base import StreamState
from helix_plugin_lm.tokenizers.bytes import unfinished


class Row:
    """Draws tokens of one text with a generator of random numbers of its own.

    `stream` and `prompt` are what its tokens go on from: the state of a decoder, and tokens after that.

    token     the last one drawn; meaningless before the first
    written   how many were drawn
    finish    why the text has ended; None while it goes on
    counts    (V,) how often prompt and text have each token
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        sampling: Sampling,
        stopping: Stopping,
        rng: np.random.Generator,
        counts: np.ndarray,
        stream: StreamState = ((), 0),
        prompt: Sequence[int] | np.ndarray = (),
    ) -> None:
        self._sampling, self._stopping = sampling, stopping
        self._scanner = StopScanner(stopping.strings)
        self._bytes = 0
        self.rng, self.counts = rng, counts
        self.stream = tokenizer.stream(stream)
        if len(prompt):
            self.stream.read(prompt)
        self.token, self.written = 0, 0
        self.finish = LENGTH if 0 in (stopping.max_tokens, stopping.max_bytes) else None

    def advance(self, logits: np.ndarray) -> bytes:
        """Draw a token from logits (V,) and return the text that is certain now, perhaps none."""
        # A model may have more logits than there are tokens, to round up a matrix.
        size = min(len(logits), len(self.counts))
        self.token = self._sampling.pick(logits[:size], self.rng, self.counts[:size])
        self.written += 1
        if self.token in self._stopping.tokens:
            return self.end(STOP_TOKEN)
        self.counts[self.token] += 1
        text = self._take(self.stream.feed(self.token))
        if self.finish is None and self.written == self._stopping.max_tokens:
            text += self.end(LENGTH)
        return text

    def end(self, reason: str) -> bytes:
        """End the text here; what was held back for a stop string that did not come."""
        text = self._take(self.stream.end())
        if self.finish is None:
            self.finish = reason
            text += self._scanner.flush()
        return text

    def _take(self, piece: bytes) -> bytes:
        """The part of a piece that belongs to the text for certain; ends the text where that is complete."""
        piece, full = self._cut(piece)
        text, stopped = self._scanner.feed(piece)
        if stopped:
            self.finish = STOP_STRING
        elif full:
            self.finish = LENGTH
            text += self._scanner.flush()
        return text

    def _cut(self, piece: bytes) -> tuple[bytes, bool]:
        """The part of a piece that there is room for, whole characters only, and whether no room is left."""
        limit = self._stopping.max_bytes
        full = limit is not None and self._bytes + len(piece) >= limit
        if limit is not None and self._bytes + len(piece) > limit:
            piece = piece[: limit - self._bytes]
            piece = piece[: len(piece) - unfinished(piece)]
        self._bytes += len(piece)
        return piece, full


def count(tokens: Iterable[int] | np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each of `vocab_size` tokens occurs: (V,)."""
    return np.bincount(np.asarray(tokens, dtype=np.int64), minlength=vocab_size)
