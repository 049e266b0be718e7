"""From codes to nodes: each context of 1..order codes is a node that links to the code behind it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from helix_core.errors import UsageError


class Contexts:
    """Nodes 0..alphabet-1 are codes; contexts are hashed to 2^bits nodes above them, those of every length apart."""

    def __init__(self, order: int, bits: int, alphabet: int = 256) -> None:
        self.order, self.bits, self.alphabet = order, bits, alphabet

    def pairs(self, codes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """codes (L,) -> contexts (order, L), -1 where one would begin too early, and the codes behind them (L,)."""
        array = np.asarray(codes)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise UsageError(f"codes must be integers (L,), not {array.dtype} {array.shape}")
        if array.size and (array.min() < 0 or array.max() >= self.alphabet):
            raise UsageError(f"codes must be in 0..{self.alphabet - 1}, not {array.min()}..{array.max()}")
        nodes = np.full((self.order, len(array)), -1, np.int64)
        mixed = np.zeros(len(array), np.uint64)
        for n in range(1, self.order + 1):
            if len(array) <= n:
                break
            shifted = np.zeros(len(array), np.uint64)
            shifted[n:] = array[: len(array) - n].astype(np.uint64) + np.uint64(1)
            mixed = _mix(mixed * np.uint64(0x100000001B3) ^ shifted ^ np.uint64(n << 56))
            nodes[n - 1, n:] = (mixed[n:] >> np.uint64(64 - self.bits)).astype(np.int64) + self.alphabet
        return nodes, array.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
