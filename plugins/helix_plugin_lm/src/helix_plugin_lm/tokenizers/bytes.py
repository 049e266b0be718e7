"""The tokenizer of models whose tokens are bytes."""

from __future__ import annotations

import numpy as np

from helix_plugin_lm.tokenizers.base import StreamState, Tokenizer, TokenStream

SEPARATOR = 0
"""The byte in front of every document: what a model sees before the first byte of a text."""


class ByteStream(TokenStream):
    """Holds back the beginning of a character in UTF-8; bytes that are none pass as they are."""

    def __init__(self, held: bytes = b"") -> None:
        self._held = held

    def feed(self, token: int) -> bytes:
        text = self._held + bytes([token])
        keep = unfinished(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def state(self) -> StreamState:
        return list(self._held), 0


class ByteTokenizer(Tokenizer):
    """Every byte is a token; a zero byte stands in front of every document."""

    vocab_size = 256
    start = SEPARATOR
    ends: frozenset[int] = frozenset()
    fingerprint = "bytes"

    def encode(self, text: bytes) -> np.ndarray:
        return np.frombuffer(text, dtype=np.uint8).astype(np.int64)

    def prompt(self, text: bytes) -> np.ndarray:
        return self.encode(bytes([SEPARATOR]) + text)

    def stream(self, state: StreamState = ((), 0)) -> ByteStream:
        held = bytes(state[0])
        if len(held) > 3 or state[1] != 0:
            raise ValueError("no beginning of a character")
        return ByteStream(held)


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
