"""When a text ends: stop tokens, stop strings and limits."""

from __future__ import annotations

from dataclasses import dataclass

from helix_core.errors import UsageError

STOP_TOKEN, STOP_STRING, LENGTH, CONTEXT = "stop token", "stop string", "length", "context full"
"""Why a text ended; "context full": the model's state can take in no more tokens."""


@dataclass(frozen=True)
class Stopping:
    """What ends a text; without limits it goes on for as long as it is read.

    max_tokens  tokens at most
    max_bytes   bytes of text at most; no character is cut in two
    strings     byte strings that end the text; the first to be complete counts, and the text is cut in front of it
    tokens      tokens that end the text and are no part of it
    """

    max_tokens: int | None = None
    max_bytes: int | None = None
    strings: tuple[bytes, ...] = ()
    tokens: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_bytes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"{name} must be at least 0, not {value}")
        if not all(self.strings):
            raise UsageError("a stop string must not be empty")
        if any(token < 0 for token in self.tokens):
            raise UsageError("a stop token must be at least 0")


class StopScanner:
    """Finds the first stop string to be complete in text that comes in pieces, however the text is cut.

    What may yet turn out to be the beginning of one is held back.
    """

    def __init__(self, strings: tuple[bytes, ...]) -> None:
        self._strings, self._held = strings, b""

    def feed(self, piece: bytes) -> tuple[bytes, bool]:
        """The next piece -> text that is sure to come before any stop string, and whether one is complete."""
        text = self._held + piece
        found = [(at + len(s), at) for s in self._strings if (at := text.find(s)) >= 0]
        if found:
            self._held = b""
            return text[: min(found)[1]], True
        keep = max((_overlap(text, s) for s in self._strings), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> bytes:
        """What was held back, once nothing comes any more."""
        held, self._held = self._held, b""
        return held


def _overlap(text: bytes, string: bytes) -> int:
    """Length of the longest end of `text` that `string` begins with, less than all of it."""
    return next((n for n in range(min(len(string) - 1, len(text)), 0, -1) if text.endswith(string[:n])), 0)
