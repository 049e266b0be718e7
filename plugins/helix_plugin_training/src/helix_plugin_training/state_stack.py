"""The states between the chunks of a long sequence, in host memory set aside at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.tree import tree_items, tree_map

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend


class StateStack:
    """Last in, first out; `pop` gives arrays of the backend again.

    One block per leaf for all `count` states: small arrays that stay while the large ones around them come and go would
    lie scattered over the heap, and no free place between them would fit the next large one (the C library's heap grew
    to 4.8 GB in a training step over 262,144 tokens that needs 0.8). A leaf that changes its shape on the way (a cache
    that grows) is kept as an array of its own.
    """

    def __init__(self, backend: Backend, xp: Any, count: int) -> None:
        self._backend, self._xp, self._count = backend, xp, count
        self._blocks: list[np.ndarray] = []
        self._states: list[tuple[Any, list[Any], list[np.ndarray]]] = []

    def push(self, state: Any) -> None:
        """Put a state on top, in the host's memory."""
        leaves = [leaf for _, leaf in tree_items(state)]
        values = [self._backend.to_numpy(leaf) for leaf in leaves]
        if not self._states:
            self._blocks = [np.empty((self._count, *value.shape), value.dtype) for value in values]
        kept = []
        for place, value in enumerate(values):
            block = self._blocks[place] if place < len(self._blocks) else None
            if block is None or block.shape[1:] != value.shape or block.dtype != value.dtype:
                kept.append(value.copy())
                continue
            slot = block[len(self._states), ...]
            slot[...] = value
            kept.append(slot)
        structure = tree_map(lambda leaf: 0, state)
        self._states.append((structure, [leaf.dtype for leaf in leaves], kept))

    def pop(self) -> Any:
        """Take the topmost state, on the backend."""
        structure, dtypes, kept = self._states.pop()
        leaves = iter([self._backend.asarray(value) for value in kept])
        types = iter(dtypes)

        def leaf(_: Any) -> Any:
            found, dtype = next(leaves), next(types)
            return found if found.dtype == dtype else self._xp.astype(found, dtype)

        return tree_map(leaf, structure)
