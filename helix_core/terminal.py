"""Texts of strangers on a terminal: control characters, which could drive it, are shown escaped.

Names, paths, errors and generated texts may hold them. A file or a pipe gets every byte as it is.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# C0 but for newline and tab, DEL, C1, and what turns the direction of the text around it.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """The text with control characters written as `\\x1b`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class EscapingTerminal:
    r"""A terminal's text stream that writes control characters as `\x1b`, and bytes that are no UTF-8 as `\xff`.

    terminal  the stream itself, for what is meant to drive it: a progress bar
    """

    def __init__(self, stream: TextIO) -> None:
        self.terminal = stream
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        """Write a text with its control characters escaped; return the length of what was given."""
        shown = escape(text)
        try:
            self.terminal.write(shown)
        except UnicodeEncodeError:  # a terminal of few characters
            self.terminal.write(shown.encode("ascii", "backslashreplace").decode())
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


class _Bytes:
    """The bytes of an EscapingTerminal; a character may come in pieces."""

    def __init__(self, terminal: EscapingTerminal) -> None:
        self._terminal = terminal
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> int:
        self._terminal.write(self._decoder.decode(data))
        return len(data)

    def finish(self) -> None:
        """Show what is left of a character that was cut off."""
        self._terminal.write(self._decoder.decode(b"", final=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal.terminal, name)


def terminal_of(stream: Any) -> Any:
    """The terminal behind an EscapingTerminal, however that is wrapped; any other stream itself."""
    return getattr(stream, "terminal", stream)


@contextmanager
def escaping_terminals() -> Iterator[None]:
    """Escape what is written to standard output and error, as far as they are terminals."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        EscapingTerminal(stream) if stream is not None and stream.isatty() else stream for stream in before
    )
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, EscapingTerminal):
                stream.buffer.finish()
                stream.flush()
        sys.stdout, sys.stderr = before
