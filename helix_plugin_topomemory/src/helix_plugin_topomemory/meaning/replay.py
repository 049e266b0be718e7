"""Prioritised replay: windows of the past whose links changed most, or that are recent, are gone through again."""

from __future__ import annotations

import numpy as np

from helix_plugin_topomemory.links import LinkGraph


class ReplayPool:
    """The last windows seen, as pairs of nodes, with the stability their links had when they were last gone through."""

    def __init__(self, size: int, recency: float, rng: np.random.Generator) -> None:
        self._size, self._recency, self._rng = size, recency, rng
        self._windows: list[tuple[np.ndarray, np.ndarray]] = []
        self._stability: list[float] = []

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Remember the pairs of a window; the oldest window makes room."""
        self._windows.append((a, b))
        self._stability.append(0.0)
        del self._windows[: -self._size], self._stability[: -self._size]

    def replay(self, graph: LinkGraph, count: int) -> int:
        """Rehearse a sample of windows, drawn by |ΔS| + recency; the number of windows."""
        if not self._windows or not count:
            return 0
        sizes = [len(a) for a, _ in self._windows]
        s, _ = graph.find(*(np.concatenate(side) for side in zip(*self._windows, strict=True)))
        now = np.add.reduceat(s, np.r_[0, np.cumsum(sizes)[:-1]]) / sizes
        age = np.arange(len(sizes))[::-1] / self._size
        priority = np.abs(now - self._stability) + self._recency * (1 - age) + 1e-9
        chosen = self._rng.choice(len(sizes), min(count, len(sizes)), replace=False, p=priority / priority.sum())
        for i in chosen:
            graph.rehearse(*self._windows[i])
            self._stability[i] = float(now[i])
        return len(chosen)
