"""Streams with planted structure, for the tests of this plugin."""

from __future__ import annotations

import numpy as np


def associations(rng: np.random.Generator, nodes: int, count: int) -> np.ndarray:
    """`count` pairs (count, 2) of different nodes, each node in one pair at most."""
    return rng.permutation(nodes)[: 2 * count].reshape(count, 2)


def stream(rng: np.random.Generator, pairs: np.ndarray, nodes: int, events: int, share: float = 0.15) -> np.ndarray:
    """Codes (~events,): a planted pair, back to back, in a share of the events; else one node at random."""
    planted = rng.random(events) < share
    chosen = pairs[rng.integers(len(pairs), size=events)]
    single = rng.integers(nodes, size=events)
    both = np.stack([np.where(planted, chosen[:, 0], single), np.where(planted, chosen[:, 1], -1)], 1).ravel()
    return both[both >= 0]
