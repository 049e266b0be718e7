"""The tokenizer of models whose tokens are bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helix_plugin_lm.tokenizers.base import StreamState, Tokenizer, TokenStream

SEPARATOR = 0
"""The byte in front of every document: what a model sees before the first byte of a text."""


class ByteStream(TokenStream):
    """Holds back the beginning of a character in UTF-8; bytes that are none pass as they are."""

    def __init__(self, held: bytes = b"", given: int = 0) -> None:
        self._held, self._given = held, given

    def read(self, tokens: Sequence[int] | np.ndarray) -> None:
        text = self._held + bytes(map(int, tokens[-3:]))
        self._given = unfinished(text)
        self._held = text[len(text) - self._given :]

    def feed(self, token: int) -> bytes:
        text = self._held + bytes([token])
        certain = len(text) - unfinished(text)
        piece = text[self._given : certain]
        self._held, self._given = text[certain:], max(0, self._given - certain)
        return piece

    def state(self) -> StreamState:
        return list(self._held), self._given


class ByteTokenizer(Tokenizer):
    """Every byte is a token; a zero byte stands in front of every document.

    >>> from helix_plugin_lm.tokenizers import ByteTokenizer
    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("né".encode()).tolist(), tokenizer.prompt(b"n").tolist()
    ([110, 195, 169], [0, 110])
    >>> tokenizer.decode([110, 195, 169]).decode()
    'né'
    """

    vocab_size = 256
    padded = False
    start = SEPARATOR
    ends: frozenset[int] = frozenset()
    fingerprint = "bytes"

    def encode(self, text: bytes) -> np.ndarray:
        return np.frombuffer(text, dtype=np.uint8).astype(np.int64)

    def prompt(self, text: bytes) -> np.ndarray:
        return self.encode(bytes([SEPARATOR]) + text)

    def stream(self, state: StreamState = ((), 0)) -> ByteStream:
        held, given = bytes(state[0]), state[1]
        if len(held) > 3 or not 0 <= given <= len(held):
            raise ValueError("no beginning of a character")
        return ByteStream(held, given)


BYTES = ByteTokenizer()


def unfinished(text: bytes) -> int:
    """How many bytes at the end of a text begin a character in UTF-8 that more bytes could complete."""
    for n in range(1, min(3, len(text)) + 1):
        if text[-n] >= 0xC0:
            try:
                text[-n:].decode()
            except UnicodeDecodeError as error:
                return n if error.reason == "unexpected end of data" else 0
            return 0
        if text[-n] < 0x80:
            return 0
    return 0
