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

    def read(self, tokens: Sequence[int] | np.ndarray) -> None:
        """Take in tokens whose text is known, such as a prompt's: what follows is decoded as their continuation."""
        for token in tokens:
            self.feed(int(token))

    def end(self) -> bytes:
        """The text that was not certain because tokens might have followed, up to the last whole character."""
        return b""

    @abstractmethod
    def state(self) -> StreamState:
        """What `Tokenizer.stream` continues from."""


class Tokenizer(ABC):
    """Texts as tokens and back.

    vocab_size   tokens are below this
    padded       whether its models may have a few tokens more, as a matrix is rounded up
    start        the token in front of every document: what a model sees before the first token of a text
    ends         tokens that end a text when a model writes them
    fingerprint  of everything that its tokens depend on
    """

    vocab_size: int
    padded: bool = True
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

    def decode(self, tokens: Sequence[int], state: StreamState = ((), 0)) -> bytes:
        """The text of tokens, after those of a state if there is one, up to the last whole character."""
        stream = self.stream(state)
        return b"".join(map(stream.feed, tokens)) + stream.end()


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raise ConfigError unless the tokenizer can be that of a model with `vocab_size` tokens.

    The model needs all of the tokenizer's, and may have fewer than twice as many where it is padded. With others, a
    text would lack what the model says with the rest.
    """
    least = tokenizer.vocab_size
    most = 2 * least - 1 if tokenizer.padded else least
    if not least <= vocab_size <= most:
        raise ConfigError(
            f"the tokenizer has {least:,} tokens, the model {vocab_size:,}: they do not belong together",
            hint=f"take the tokenizer that the model was trained with; to train one, set model.vocab_size = {least}",
        )
