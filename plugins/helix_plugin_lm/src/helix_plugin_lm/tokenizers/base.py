"""What a tokenizer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from helix_core.errors import ConfigError

StreamState = tuple[Sequence[int], int]
"""A few last tokens, and how much of their text has been given."""


class TokenStream(ABC):
    """Tokens in, one by one; text out, in pieces that never end inside a character."""

    @abstractmethod
    def feed(self, token: int) -> bytes:
        """The text that is certain now and was not before; UTF-8, or the model's own bytes where they are none."""

    @abstractmethod
    def state(self) -> StreamState:
        """What `Tokenizer.stream` continues from."""


class Tokenizer(ABC):
    """Texts as tokens and back.

    vocab_size   tokens are below this
    start        the token in front of every document: what a model sees before the first token of a text
    ends         tokens that end a text when a model writes them
    fingerprint  of everything that its tokens depend on
    """

    vocab_size: int
    start: int | None
    ends: frozenset[int]
    fingerprint: str

    @abstractmethod
    def encode(self, text: bytes) -> np.ndarray:
        """The tokens (N,) of a document, without `start`. Raises TokenizerError for a text that it cannot encode."""

    @abstractmethod
    def prompt(self, text: bytes) -> np.ndarray:
        """The tokens (N,), at least one, that a model reads before it continues a text from its beginning."""

    @abstractmethod
    def stream(self, state: StreamState = ((), 0)) -> TokenStream:
        """A decoder of tokens as they come. Raises ValueError for a state that is none of its own."""

    def decode(self, tokens: Sequence[int]) -> bytes:
        """The text of tokens, up to the last whole character."""
        stream = self.stream()
        return b"".join(map(stream.feed, tokens))


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raise ConfigError if a model with so many tokens lacks some of the tokenizer's."""
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {vocab_size:,}",
            hint=f"set model.vocab_size = {tokenizer.vocab_size}",
        )
