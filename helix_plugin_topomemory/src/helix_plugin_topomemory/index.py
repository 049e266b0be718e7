"""Nearest keys by cosine: exact while that is cheap, a graph index beyond."""

from __future__ import annotations

from typing import Any

import numpy as np
from usearch.index import Index

from helix_plugin_topomemory.index_file import is_sound

BLOCK = 1 << 24
"""Similarities that an exact search holds at once."""

SMALL = 1000
"""Keys that enter a graph one by one before threads share the work."""


def unit(keys: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a row of zeros stays."""
    norms = np.linalg.norm(keys, axis=1, keepdims=True)
    return np.asarray(keys / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest of each row (Q, N), best first; equal scores in order of column."""
    if k < scores.shape[1]:
        columns = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    else:
        columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, columns, 1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1)


def exact(
    keys: np.ndarray, queries: np.ndarray, k: int, mix: float, bonus: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (Q, k') and scores of the best by mix * cos + (1 - mix) * bonus, among unit keys (N, D)."""
    k = min(k, len(keys))
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    step = max(1, BLOCK // max(1, len(keys)))
    for begin in range(0, len(queries), step):
        some = mix * (queries[begin : begin + step] @ keys.T) + (1 - mix) * bonus
        best = top(some, k)
        rows[begin : begin + step], scores[begin : begin + step] = best, np.take_along_axis(some, best, 1)
    return rows, scores


class GraphIndex:
    """An HNSW graph over unit keys (usearch), keyed by item id.

    Source: Malkov and Yashunin, Efficient and Robust Approximate Nearest Neighbor Search Using HNSW Graphs, 2018.
    """

    def __init__(self, dim: int, dtype: str, connectivity: int, expansion_add: int, expansion_search: int) -> None:
        self._options: dict[str, Any] = {"ndim": dim, "dtype": dtype, "connectivity": connectivity}
        self._index = Index(
            **self._options, metric="ip", expansion_add=expansion_add, expansion_search=expansion_search
        )

    def add(self, ids: np.ndarray, keys: np.ndarray) -> None:
        """Insert keys (N, D) under ids (N,)."""
        # In a small graph threads that insert at the same time may not see each other: a node stays unreachable.
        alone = max(0, SMALL - len(self._index))
        ids = ids.astype(np.uint64)
        if alone:
            self._index.add(ids[:alone], keys[:alone], copy=True, threads=1)
        if len(ids) > alone:
            self._index.add(ids[alone:], keys[alone:], copy=True)

    def remove(self, ids: np.ndarray) -> None:
        """Take out the keys of ids (N,)."""
        self._index.remove(ids.astype(np.uint64))

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Ids (Q, k), -1 where fewer were found."""
        found: Any = self._index.search(queries, k)
        if len(queries) == 1:
            ids = np.asarray(found.keys).reshape(1, -1)
            counts = np.array([ids.shape[1]])
        else:
            ids, counts = np.asarray(found.keys), np.asarray(found.counts)
        out = np.full((len(queries), k), -1, np.int64)
        width = ids.shape[1]
        valid = np.arange(width)[None, :] < counts[:, None]
        out[:, :width][valid] = ids.astype(np.int64)[valid]
        return out

    def dump(self) -> bytes:
        """The graph as bytes, for a file."""
        saved: Any = self._index.save()
        return bytes(saved)

    def restore(self, data: bytes, ids: np.ndarray, keys: np.ndarray) -> None:
        """Take what `dump` gave; if it is not of these ids (N,), rising, and keys (N, D), build the graph from them."""
        c = self._options
        if is_sound(data, ids, dim=c["ndim"], dtype=c["dtype"], connectivity=c["connectivity"]):
            self._index.load(bytearray(data))
        elif len(ids):
            self.add(ids, keys)

    def __len__(self) -> int:
        return len(self._index)
