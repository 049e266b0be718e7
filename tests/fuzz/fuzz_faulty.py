"""Readers that do what none may, for the test that the fuzzer sees it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz_readers import Reader

from helix_core.errors import DataError


def _refuse() -> None:
    raise DataError("this is damaged")


def _raise() -> None:
    raise KeyError("a raw error")


def _take() -> None:
    bytearray(b"\1") * (120 << 20)


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    time.sleep(3600)


def _faulty(*ways: Callable[[], None]) -> Callable[[], Reader]:
    """Does these things one after the other, from the first input that a process reads."""

    def make(folder: Path) -> Iterator[Callable[[], None]]:
        (folder / "x.json").write_text('{"a": 1}')
        return iter((lambda: None, *ways))

    def read(folder: Path, left: Iterator[Callable[[], None]]) -> None:
        next(left, lambda: None)()

    return lambda: Reader(make, read)


FAULTY = {
    "faulty": _faulty(_refuse, _raise, _take, _crash),
    "hanging": _faulty(_refuse, _hang),
}
