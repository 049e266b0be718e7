"""References written `module:attribute`."""

from __future__ import annotations

import importlib
import re
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
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    return value
