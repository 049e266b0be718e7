"""Helix in four calls: `train` a recipe, `load` a run, then generate from it and evaluate it.

Everything here is imported on first use, so that `import helix` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {"Run": "helix.run", "load": "helix.run", "train": "helix.training"}

__all__ = ["Run", "load", "train"]

if TYPE_CHECKING:
    from helix.run import Run as Run
    from helix.run import load as load
    from helix.training import train as train


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
