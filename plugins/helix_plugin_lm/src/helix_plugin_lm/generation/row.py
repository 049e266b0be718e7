"""One text that is being written: what it draws, what it has said, and whether it has ended."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from helix_plugin_lm.generation.sampling import Sampling
from helix_plugin_lm.generation.stopping import LENGTH, STOP_STRING, STOP_TOKEN, Stopping, StopScanner
from helix_plugin_lm.tokenizers import Tokenizer
from helix_plugin_lm.tokenizers.base import StreamState
from helix_plugin_lm.tokenizers.bytes import unfinished


class Row:
    """Draws tokens of one text with a generator of random numbers of its own.

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
    ) -> None:
        self._sampling, self._stopping = sampling, stopping
        self._scanner = StopScanner(stopping.strings)
        self._bytes = 0
        self.rng, self.counts = rng, counts
        self.stream = tokenizer.stream(stream)
        self.token, self.written = 0, 0
        self.finish = LENGTH if 0 in (stopping.max_tokens, stopping.max_bytes) else None

    def advance(self, logits: np.ndarray) -> bytes:
        """Draw a token from logits (V,) and return the text that is certain now, perhaps none."""
        # A model may have more logits than there are tokens, to round up a matrix.
        size = min(len(logits), len(self.counts))
        self.token = self._sampling.pick(logits[:size], self.rng, self.counts[:size])
        self.written += 1
        if self.token in self._stopping.tokens:
            self.finish = STOP_TOKEN
            return self._scanner.flush()
        self.counts[self.token] += 1
        piece, full = self._cut(self.stream.feed(self.token))
        text, stopped = self._scanner.feed(piece)
        if stopped:
            self.finish = STOP_STRING
        elif full or self.written == self._stopping.max_tokens:
            return text + self.end(LENGTH)
        return text

    def end(self, reason: str) -> bytes:
        """End the text here; what was held back for a stop string that did not come."""
        self.finish = reason
        return self._scanner.flush()

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
