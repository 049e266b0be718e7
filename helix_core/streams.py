"""The standard streams, so that what cannot be said stops nothing that is being done."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from helix_core.terminal import escape


class Forgiving:
    """A text stream, or none, whose failures are passed over: its disk is full, its reader has left, it is closed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written; return the length of the text in any case."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: of a closed file
            if self._stream is not None:
                return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if there is anything to flush to."""
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def tell(text: str) -> None:
    """A line on standard error, if it can be written; on a terminal, with control characters escaped."""
    stream = Forgiving(sys.stderr)
    # A progress bar may stand between this and the terminal, and prints what it is given.
    print(escape(text) if stream.isatty() else text, file=stream, flush=True)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """The streams of a command, in working order.

    What is said to closed ones goes nowhere, and standard output takes every character: those that its encoding has
    not are escaped, as they always are on standard error. What is still unwritten in the end is given up, or Python
    would try it again at exit and change the exit code.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for as long as Python runs)
    out: Any = sys.stdout
    errors = getattr(out, "errors", None)
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if hasattr(out, "reconfigure"):
            out.reconfigure(errors=errors)
