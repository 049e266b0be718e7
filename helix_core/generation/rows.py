"""Rows of a state: all its arrays have the batch as their first axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from helix_core.tree import tree_map


def take(state: Any, rows: Sequence[int]) -> Any:
    """The state of these rows, in this order; a row may be taken several times or not at all."""
    index = np.asarray(rows, dtype=np.int64)
    return tree_map(lambda array: array[index], state)


def join(xp: Any, states: Sequence[Any]) -> Any:
    """States of a row or more each -> one of all their rows."""
    return tree_map(lambda *arrays: xp.concat(arrays, axis=0), *states)
