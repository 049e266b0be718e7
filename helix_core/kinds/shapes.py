"""How large a layer's state is, found out without making it."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from helix_core.errors import NotEnoughMemory
from helix_core.tree import tree_items

if TYPE_CHECKING:
    from helix_core.ops.table import OpTable


class Stateful(Protocol):
    """What has a state that can be made: a layer."""

    def init_state(self, F: OpTable, batch: int) -> Any:
        """The state before any input."""


def initial_state(layer: Stateful) -> list[np.ndarray]:
    """The arrays of `init_state` for one sequence, in shape and dtype only: all values are one value in memory."""
    return [array for _, array in tree_items(layer.init_state(_table(), 1))]


@functools.cache
def _table() -> OpTable:
    from helix_core.ops.table import DispatchKey, bind_ops

    def wrap(*_: Any) -> Any:
        raise AssertionError("there are no kernels to wrap")

    key = DispatchKey("numpy", "cpu", "float32", "infer")
    return bind_ops(np, key, (), wrap=wrap, asarray=np.asarray).replace(zeros=_zeros)


def _zeros(*shape: int) -> np.ndarray:
    if math.prod(shape) >= 2**58:
        raise NotEnoughMemory(f"a state of shape {shape} is larger than any memory")
    return np.broadcast_to(np.float32(0), shape)
