"""What happens in a sleep: items settle to their stability, some are replayed, duplicates become one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from helix_plugin_topomemory.items import Items
from helix_plugin_topomemory.links import LinkConfig, LinkGraph, State

RECENCY_HALF_LIFE = 4.0
"""Sleeps in which the priority that an item has for being recent halves."""


def settle(items: Items, links: LinkGraph, config: LinkConfig, nodes: int) -> None:
    """One step of the stability formula on every item's own signals, then their decay."""
    r = 1 - np.exp(-items["uses"] / config.n0)
    e = links.node_stability(nodes)[items["id"]]
    c = (items["uses"] + 1) / (np.maximum(items["shown"], items["uses"]) + 2)
    weight = config.weight_r + config.weight_e + config.weight_c
    signal = (config.weight_r * r + config.weight_e * e + config.weight_c * c) / weight
    before = items["stability"].copy()
    items["stability"][:] = config.inertia * before + (1 - config.inertia) * signal
    items["change"][:] = items["stability"] - before
    _, u, i, s = config.decay
    fading = np.where(before >= config.theta_high, s, np.where(before >= config.theta_low, i, u)).astype(np.float32)
    items["uses"][:] *= fading
    items["shown"][:] *= fading
    items["age"][:] += 1


def replay(items: Items, links: LinkGraph, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rehearse the links of a sample of items, drawn by |ΔS| + recency; the rows drawn."""
    if not len(items) or not count:
        return np.empty(0, np.int64)
    priority = np.abs(items["change"]) + 0.1 * 0.5 ** (items["age"] / RECENCY_HALF_LIFE) + 1e-9
    # The largest of log(u)/p: a weighted sample without replacement (Efraimidis and Spirakis, 2006).
    keys = np.log(rng.random(len(items))) / priority
    rows = np.argsort(-keys, kind="stable")[:count]
    known = links.links(State.U)
    if len(known):
        mine = np.isin(known.a, items["id"][rows])
        links.rehearse(known.a[mine], known.b[mine])
    return rows


def merge_duplicates(
    items: Items,
    rows: np.ndarray,
    least: float,
    near: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Give the uses of items that are as good as equal to the oldest of them; the rows that are now superfluous."""
    if not len(rows):
        return rows
    found, scores = near(rows, 4)
    same = (found >= 0) & (scores >= least) & (items["value"][found] == items["value"][rows][:, None])
    gone: dict[int, int] = {}
    for row, others, equal in zip(rows.tolist(), found.tolist(), same, strict=True):
        keep = min([row, *(other for other, yes in zip(others, equal, strict=True) if yes)])
        if keep != row and keep not in gone and row not in gone.values():
            gone[row] = keep
    superfluous = np.array(sorted(gone), np.int64)
    heirs = np.array([gone[row] for row in superfluous.tolist()], np.int64)
    for name in ("uses", "shown"):
        np.add.at(items[name], heirs, items[name][superfluous])
    return superfluous
