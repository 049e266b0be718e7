"""Rows of a state: all its arrays have the batch as their first axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.tree import tree_map

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend


def take(backend: Backend, state: Any, rows: Sequence[int]) -> Any:
    """The state of these rows, in this order; a row may be taken several times or not at all."""
    index = backend.asarray(np.asarray(rows, dtype=np.int64))
    return tree_map(lambda array: backend.xp.take(array, index, axis=0), state)


def join(xp: Any, states: Sequence[Any]) -> Any:
    """States of a row or more each -> one of all their rows."""
    return tree_map(lambda *arrays: xp.concat(arrays, axis=0), *states)
