"""Calling a plugin's code: whatever it raises is an Exception, and whatever it prints goes to standard error.

Listings are read by other programs (`--json`), so nothing that a plugin does while it is asked may reach standard
output; and nothing it raises may end a command that does not need it. Ctrl-C alone is the user's and passes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def isolated(function: Callable[[], T]) -> T:
    """Call a plugin's function: `contained`, with its output on standard error."""
    with output_to_stderr():
        return contained(function)


def contained(function: Callable[[], T]) -> T:
    """Call a plugin's function; what it raises is an Exception, or KeyboardInterrupt.

    `sys.exit()`, a pytest outcome, a Rust panic and all else that `except Exception` would miss becomes a RuntimeError.
    """
    try:
        return function()
    except (Exception, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise RuntimeError(f"it called sys.exit({error.code!r})") from error
    except BaseException as error:
        raise RuntimeError(f"it raised {type(error).__name__}: {text_of(error)}") from error


def text_of(error: BaseException) -> str:
    """`str(error)`, also of an exception that cannot even say what it is."""
    try:
        return str(error)
    except Exception as broken:
        return f"(its text cannot be had: {type(broken).__name__})"


class _Output:
    """Standard output turned to standard error while anyone is inside; entered by several threads, it counts them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stdout: Any = None
        self._descriptor: int | None = None

    def turn(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            _flush(sys.stdout, sys.__stdout__)
            self._stdout, sys.stdout = sys.stdout, sys.stderr
            self._descriptor = _turn_descriptor()

    def turn_back(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            _flush(self._stdout, sys.__stdout__)  # what was written past sys.stdout must not come out later
            sys.stdout = self._stdout
            if self._descriptor is not None:
                os.dup2(self._descriptor, 1)
                os.close(self._descriptor)


_output = _Output()


@contextlib.contextmanager
def output_to_stderr() -> Iterator[None]:
    """A context whose standard output is standard error, for C code and child processes too."""
    _output.turn()
    try:
        yield
    finally:
        _output.turn_back()


def _turn_descriptor() -> int | None:
    """Make descriptor 1 a copy of 2 and return what it was; None where either is closed, as in a service."""
    try:
        kept = os.dup(1)
    except OSError:
        return None
    try:
        os.dup2(2, 1)
    except OSError:
        os.close(kept)
        return None
    return kept


def _flush(*files: Any) -> None:
    for file in files:
        with contextlib.suppress(Exception):  # closed, absent, or a pipe whose reader left: its owner will notice
            file.flush()
