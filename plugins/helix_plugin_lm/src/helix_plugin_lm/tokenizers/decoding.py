"""How a `tokenizer.json` makes text of tokens, as far as a stream of them has to know."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from helix_plugin_lm.tokenizers.bytes import unfinished
from helix_plugin_lm.tokenizers.library import guarded

UNKNOWN = "\ufffd"
_FALLBACK = re.compile("<0x([0-9A-Fa-f]{2})>")
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(b): b for b in _PRINTED} | {
    chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in _PRINTED)
}
"""The characters that stand for bytes in the vocabularies of byte-level models (those of GPT-2)."""


class Decoding:
    """The text of tokens, by the decoder of a tokenizer of the library.

    streams  whether a text only ever grows when tokens follow, but for a character that lacks bytes
    """

    def __init__(self, tokenizer: Any, origin: str) -> None:
        self._tokenizer, self._origin = tokenizer, origin
        self._special = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
        decoder = tokenizer.decoder
        self._decoders = _flat(json.loads(decoder.__getstate__())) if decoder is not None else []
        self.streams = _streams(self._decoders)
        kinds = [d["type"] for d in self._decoders]
        self._fallback, self._level = "ByteFallback" in kinds, "ByteLevel" in kinds

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones. Raises TokenizerError where the library fails."""
        if not ids:
            return ""  # which some decoders fail at
        with guarded(f"the tokenizer {self._origin} cannot decode tokens"):
            text: str = self._tokenizer.decode(ids)
        return text

    def shown(self, token: int) -> bool:
        """Whether a token is part of a text: the decoder does not even see special tokens and unused numbers."""
        name = self._tokenizer.id_to_token(token)
        return name is not None and name not in self._special

    def run(self, ids: Sequence[int]) -> bytes:
        """The bytes at the end of tokens that each are one: they become characters only where all of them are UTF-8."""
        found: list[int] = []
        for token in reversed(ids) if self._fallback else ():
            byte = _FALLBACK.fullmatch(self._tokenizer.id_to_token(token))
            if byte is None:
                break
            found.append(int(byte[1], 16))
        return bytes(reversed(found))

    def open(self, ids: Sequence[int], text: str) -> int:
        """How many characters at the end of the text of these tokens stand for one that lacks bytes."""
        if not text.endswith(UNKNOWN):
            return 0
        if (run := self.run(ids)) and lacks_bytes(run):
            return len(run)
        return int(self._level and unfinished(self._last_bytes(ids)) > 0)

    def _last_bytes(self, ids: Sequence[int]) -> bytes:
        """The last three bytes, or more, of byte-level tokens."""
        found = b""
        for token in reversed(ids):
            name = self._tokenizer.id_to_token(token)
            found = (bytes(map(_BYTES.__getitem__, name)) if _BYTES.keys() >= set(name) else name.encode()) + found
            if len(found) >= 3:
                break
        return found


def lacks_bytes(run: bytes) -> bool:
    """Whether bytes are characters in UTF-8 and the beginning of another."""
    try:
        run.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _flat(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder["type"] == "Sequence":
        return [part for inner in decoder["decoders"] for part in _flat(inner)]
    return [decoder]


def _streams(decoders: list[dict[str, Any]]) -> bool:
    """Whether later tokens leave the text of earlier ones as it is.

    They do where decoders work token by token, and then put the pieces together. What rewrites a text that was put
    together may change any of it: "do" and " not" may become "don't".
    """
    before: set[str] = set()
    for decoder in decoders:
        kind = decoder["type"]
        if not before & {"BPEDecoder", "ByteLevel", "ByteFallback", "Fuse"}:
            fine = (
                kind in ("Replace", "Metaspace", "WordPiece", "CTC", "Strip", "BPEDecoder", "Fuse")
                or (kind == "ByteFallback" and before <= {"Replace", "Metaspace"})
                or (kind == "ByteLevel" and not before)
            )
        else:
            stripped = kind == "Strip" and decoder["stop"] == 0 and bool(before & {"ByteLevel", "Fuse"})
            fine = kind in ("Fuse", "Metaspace") or stripped
        if not fine:
            return False
        before.add(kind)
    return True
