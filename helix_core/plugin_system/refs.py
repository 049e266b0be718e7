"""References written `module:attribute`."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_REF = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")


def is_ref(text: str) -> bool:
    """Whether `text` has the form `module:attribute`."""
    return bool(_REF.match(text))


def load_ref(ref: str) -> Any:
    """Import what a reference names. Raises ValueError for a bad form, else what the import raises."""
    if not is_ref(ref):
        raise ValueError(f"{ref!r} is not a reference of the form 'module:attribute'")
    module, _, path = ref.partition(":")
    with _some_folder():
        value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    return value


@contextmanager
def _some_folder() -> Iterator[None]:
    """A working folder, where the user's own is gone: on its import torch learns from there where its libraries are,
    and oneMKL would end the process later.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        gone = os.open(os.curdir, os.O_RDONLY)
        os.chdir(os.sep)
        try:
            yield
        finally:
            os.fchdir(gone)
            os.close(gone)
    else:
        yield
