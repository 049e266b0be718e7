"""Helix in four calls: `train` a recipe, `load` a run, then generate from it and evaluate it.

Everything here is imported on first use, so that `import helix` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_core.lazy import lazy_attributes

_HOMES = {"Run": "helix.run", "load": "helix.run", "train": "helix.training"}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_attributes(__name__, _HOMES)

if TYPE_CHECKING:
    from helix.run import Run as Run
    from helix.run import load as load
    from helix.training import train as train
