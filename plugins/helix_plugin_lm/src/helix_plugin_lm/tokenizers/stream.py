"""Tokens of a `tokenizer.json` as text, while they come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helix_plugin_lm.tokenizers.base import StreamState, TokenStream
from helix_plugin_lm.tokenizers.decoding import Decoding, lacks_bytes

WINDOW, KEPT = 32, 8


class FileStream(TokenStream):
    """Decodes a window of the last tokens, so that each takes the same time wherever it stands in a text.

    The text of a token depends on what stands before it: decoders drop the blank in front of the first one. So the
    window always has tokens whose text was given, and only tokens that a text shows are in it.
    """

    def __init__(self, decoding: Decoding, ids: list[int], given: int) -> None:
        self._decoding, self._ids, self._given = decoding, ids, given
        self._limit = WINDOW

    def read(self, tokens: Sequence[int] | np.ndarray) -> None:
        self._ids += filter(self._decoding.shown, map(int, tokens))
        text = self._decoding.text(self._ids)
        self._given = len(text)
        self._forget(text)

    def feed(self, token: int) -> bytes:
        if not self._decoding.shown(token):
            return b""
        self._ids.append(token)
        return self._give() if self._decoding.streams else b""

    def end(self) -> bytes:
        return self._give()

    def state(self) -> StreamState:
        return list(self._ids), self._given

    def _give(self) -> bytes:
        text = self._decoding.text(self._ids)
        certain = len(text) - self._decoding.open(self._ids, text)
        piece = text[self._given : certain]
        self._given = max(self._given, certain)
        self._forget(text)
        return piece.encode()

    def _forget(self, text: str) -> None:
        """Drop tokens that the text of later ones does not depend on."""
        if not self._decoding.streams:
            return
        run = self._decoding.run(self._ids)
        if run and not lacks_bytes(run):
            begin = len(self._ids) - len(run)
            first, last = _kept(run, alone=begin == 0)
            self._ids[begin:] = self._ids[begin + first : begin + last]
            text = self._decoding.text(self._ids)
            self._given = len(text)
        if len(self._ids) <= self._limit:
            return
        due, kept = text[self._given :], KEPT
        while 2 * kept <= len(self._ids):
            tail = self._decoding.text(self._ids[-kept:])
            if len(tail) > len(due) and tail.endswith(due):
                self._ids = self._ids[-kept:]
                self._given = len(tail) - len(due)
                break
            kept *= 2
        self._limit = max(WINDOW, 2 * len(self._ids))


def _kept(run: bytes, *, alone: bool) -> tuple[int, int]:
    """The part of a run of bytes, all of whose text was given, that the text of later bytes depends on.

    Whole characters do not matter, but that something stands in front. Once a run is not UTF-8, no byte of it is a
    character: then what is wrong with it stays.
    """
    try:
        characters = run.decode()
    except UnicodeDecodeError as error:
        return error.start, error.end + 1
    return (len(run) - len(characters[-1].encode()) if alone else len(run)), len(run)
