"""Retrieval on several levels: episodes and cores rank their items, reciprocal ranks fuse the rankings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helix_plugin_topomemory.index import top, unit
from helix_plugin_topomemory.items import Items

RRF = 60
"""The constant of reciprocal-rank fusion (Cormack, Clarke and Büttcher, 2009)."""


def level_rankings(items: Items, queries: np.ndarray, context: np.ndarray, count: int) -> list[np.ndarray]:
    """A ranking of rows (Q, count) by episodes and one by cores: groups by the context, their items by the query."""
    rankings = []
    for level in ("episode", "core"):
        labels = items[level]
        member = np.flatnonzero(labels >= 0)
        if len(member):
            rankings.append(_ranking(items.keys, labels, member, queries, context, count))
    return rankings


def _ranking(
    keys: np.ndarray, labels: np.ndarray, member: np.ndarray, queries: np.ndarray, context: np.ndarray, count: int
) -> np.ndarray:
    order = member[np.argsort(labels[member], kind="stable")]
    sorted_labels = labels[order]
    first = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]])
    sizes = np.diff(np.r_[first, len(order)])
    centres = unit(np.add.reduceat(keys[order], first, axis=0))
    groups = top(context @ centres.T, min(count, len(first)))
    out = np.full((len(queries), count), -1, np.int64)
    for q, ranked in enumerate(groups):
        filled = 0
        for group in ranked:
            rows = order[first[group] : first[group] + sizes[group]]
            rows = rows[np.argsort(-(keys[rows] @ queries[q]), kind="stable")][: count - filled]
            out[q, filled : filled + len(rows)] = rows
            filled += len(rows)
            if filled == count:
                break
    return out


def fuse(rankings: Sequence[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows (Q, k) by Σ 1/(60 + rank) over rankings (Q, n) of rows, and these sums; -1 stands for none."""
    queries = len(rankings[0])
    rows = np.full((queries, k), -1, np.int64)
    scores = np.full((queries, k), -np.inf, np.float32)
    for q in range(queries):
        found = np.concatenate([ranking[q] for ranking in rankings])
        worth = np.concatenate([1 / (RRF + 1 + np.arange(ranking.shape[1])) for ranking in rankings])
        known, places = np.unique(found[found >= 0], return_inverse=True)
        total = np.bincount(places, worth[found >= 0], minlength=len(known))
        best = np.argsort(-total, kind="stable")[:k]
        rows[q, : len(best)], scores[q, : len(best)] = known[best], total[best]
    return rows, scores
