"""Attributes of a module that are imported on first use, so that importing the module costs next to nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(module: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a module whose public names live in other modules.

    `homes` gives the module that defines each name. The module lists them in its `__all__` and imports them under
    `TYPE_CHECKING`, for type checkers and editors.

    >>> get, _ = lazy_attributes(__name__, {"sqrt": "math"})
    >>> get("sqrt")(9.0)
    3.0
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[module], name, value)
        return value

    def names() -> list[str]:
        return sorted(sys.modules[module].__all__)

    return get, names
