"""The memory `topological`: items ranked by similarity and by a stability that they earn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from helix_core.errors import MemoryStoreError, UsageError
from helix_core.kinds.memory import Hits, Ids, Memory, MemoryConfig, check_keys, check_values
from helix_core.untrusted import fits, refusing
from helix_plugin_lm.storage.store import load_store, save_store
from helix_plugin_topomemory.index import GraphIndex, exact, top, unit
from helix_plugin_topomemory.items import MOST_ITEMS, Items
from helix_plugin_topomemory.levels import fuse, level_rankings
from helix_plugin_topomemory.links import LinkConfig, LinkGraph
from helix_plugin_topomemory.sleep import merge_duplicates, replay, settle

APPROXIMATE = 0.9
"""The least λ at which the index is used: below it, stable items that are not near would be missed too often."""


class TopologicalConfig(MemoryConfig):
    """Options of the topological memory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mix: float = Field(0.9, ge=0, le=1, description="λ of λ·cos + (1-λ)·S; 1 ranks by similarity, 0 by stability")
    capacity: int | None = Field(None, gt=0, description="most items kept by a sleep; the least stable go first")
    exact_below: int = Field(20_000, ge=0, description="search exactly up to this many items")
    dtype: Literal["f32", "f16", "bf16", "i8"] = Field("f32", description="how the index holds keys")
    connectivity: int = Field(16, gt=0, description="edges per node of the index, M of HNSW")
    expansion_add: int = Field(96, gt=0, description="candidates looked at when a key is indexed")
    expansion_search: int = Field(256, gt=0, description="candidates looked at when a key is searched")
    oversample: int = Field(4, gt=0, description="candidates per wanted item that are ranked again exactly")
    episode: int = Field(8, gt=0, description="items of one `add` that belong together, in their order")
    replays: int = Field(1000, ge=0, description="items gone through in a sleep")
    merge: float = Field(0.999, ge=0, le=1, description="cosine at which replayed items of equal value become one")
    seed: int = Field(0, ge=0, description="of the sampling of replays")
    links: LinkConfig = LinkConfig()


class _Metadata(BaseModel):
    """What a store has besides arrays."""

    model_config = ConfigDict(strict=True, frozen=True)

    config: dict[str, Any]
    next_id: int = Field(ge=0, le=MOST_ITEMS)
    next_episode: int = Field(ge=0, le=MOST_ITEMS)
    sleeps: int = Field(ge=0, le=MOST_ITEMS)


class TopologicalMemory(Memory[TopologicalConfig]):
    """Items ranked by λ·cos(q, k) + (1-λ)·S; the search is exact for λ < 0.9 and up to `exact_below` items.

    S is the stability formula of the links on an item's own signals: R from how often it was of use (`reinforce`), E
    the stability of its strongest link (`associate`), C the share of its showings that were of use. `consolidate` is
    the sleep: a tick of the links, replay of what changed most or is recent, merging of duplicates, pruning to
    `capacity`. `query_levels` fuses items, episodes and cores by reciprocal rank.

    >>> from helix_core import create
    >>> memory = create("memory", "topological", dim=3)
    >>> ids = memory.add([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [10, 20, 30])
    >>> hits = memory.query([[0.1, 0.9, 0]], k=1)
    >>> hits.ids.tolist(), hits.values.tolist()
    ([[1]], [[20]])
    """

    def __init__(self, config: TopologicalConfig) -> None:
        super().__init__(config)
        self._items = Items(config.dim)
        self.links = LinkGraph(config.links)
        self._index: GraphIndex | None = None
        self._next_id = 0
        self._next_episode = 0
        self._sleeps = 0
        self._steady: np.ndarray | None = None
        self._stored: dict[Path, int] = {}

    # Writing.

    def add(self, keys: ArrayLike, values: ArrayLike | None = None) -> Ids:
        array = check_keys(keys, self.config.dim)
        given = check_values(values, len(array))
        count = len(array)
        ids = np.arange(self._next_id, self._next_id + count)
        episodes = self._next_episode + np.arange(count) // self.config.episode
        keys = unit(array)
        if self._index is not None and count:
            self._index.add(ids, keys)
        self._items.append(
            keys,
            id=ids,
            value=ids if given is None else given,
            episode=episodes,
            core=np.full(count, -1),
            uses=np.ones(count, np.float32),
        )
        self._next_id += count
        self._next_episode += -(-count // self.config.episode)
        return ids

    def reinforce(self, ids: ArrayLike, useful: ArrayLike = True) -> None:
        """Say that items were shown, and which of them were of use (N,); ids that are gone are passed over."""
        rows = self._items.rows(np.atleast_1d(np.asarray(ids, np.int64)))
        good = np.broadcast_to(np.asarray(useful, bool), rows.shape)
        np.add.at(self._items["shown"], rows[rows >= 0], 1)
        good_rows = rows[good & (rows >= 0)]
        np.add.at(self._items["uses"], good_rows, 1)
        self._items["age"][good_rows] = 0

    def associate(self, a: ArrayLike, b: ArrayLike) -> None:
        """Observe that items a (N,) led to items b (N,): evidence for links between them.

        Raises UsageError if one of them is not there.
        """
        pair = [np.atleast_1d(np.asarray(x)) for x in (a, b)]
        for ids in pair:
            if (self._items.rows(ids) < 0).any():
                raise UsageError(f"item {ids[self._items.rows(ids) < 0][0]} is not in the memory")
        self.links.observe(*pair)

    def forget(self, ids: ArrayLike) -> int:
        rows = self._items.rows(np.unique(np.atleast_1d(np.asarray(ids, np.int64))))
        rows = rows[rows >= 0]
        self._drop(rows)
        return len(rows)

    def consolidate(self) -> dict[str, Any]:
        before, self._sleeps = len(self), self._sleeps + 1
        moves = self.links.advance()
        settle(self._items, self.links, self.config.links)
        self._steady = None
        rng = np.random.default_rng([self.config.seed, self._sleeps])
        chosen = replay(self._items, self.links, self.config.replays, rng)
        merged = merge_duplicates(self._items, chosen, self.config.merge, self._rows_near)
        self._drop(merged)
        pruned = 0
        if self.config.capacity is not None and len(self) > self.config.capacity:
            pruned = len(self) - self.config.capacity
            # The least stable go; among equals the oldest.
            self._drop(np.argsort(self._items["stability"], kind="stable")[:pruned])
        return {"before": before, "replayed": len(chosen), "merged": len(merged), "pruned": pruned, "links": moves}

    # Reading.

    def query(self, keys: ArrayLike, k: int = 10) -> Hits:
        return self._hits(*self._search(unit(check_keys(keys, self.config.dim)), k, self.config.mix), k)

    def query_levels(self, keys: ArrayLike, k: int = 10, context: ArrayLike | None = None) -> Hits:
        """The k best for each key (Q, D) by reciprocal-rank fusion of items, episodes and cores.

        context (Q, D) is what surrounds the key, the mean of its neighbours in time for instance: episodes and cores
        are ranked by it, items by the key. Without cores (`find_cores`) two levels take part.
        """
        queries = unit(check_keys(keys, self.config.dim))
        around = queries if context is None else unit(check_keys(context, self.config.dim))
        if len(around) != len(queries):
            raise UsageError(f"{len(queries)} keys need as many contexts, not {len(around)}")
        pool = max(4 * k, 50)
        rows, _ = self._search(queries, pool, self.config.mix)
        return self._hits(*fuse([rows, *level_rankings(self._items, queries, around, pool)], k), k)

    def find_cores(self, sample: int = 5000) -> dict[str, Any]:
        """Give every item the stable core (persistence cluster) of its nearest sampled item."""
        from helix_plugin_topomemory.topology.cores import stable_cores

        count = len(self)
        if count < 20:
            raise UsageError(f"{count} items are too few to find cores in", hint="store at least 20")
        rng = np.random.default_rng(self.config.seed)
        chosen = np.sort(rng.choice(count, min(sample, count), replace=False))
        cores = stable_cores(self._items.keys[chosen])
        nearest, _ = exact(self._items.keys[chosen], self._items.keys, 1, 1.0, np.zeros(len(chosen), np.float32))
        self._items["core"][:] = cores.labels[nearest[:, 0]]
        return {"cores": cores.count, "persistence": cores.persistence.tolist()}

    def values(self, ids: ArrayLike) -> np.ndarray:
        """The values of items, -1 where there is none."""
        rows = self._items.rows(np.asarray(ids, np.int64))
        return np.where(rows >= 0, self._items["value"][rows], -1)

    def stability(self, ids: ArrayLike) -> np.ndarray:
        """The stability of items, 0 where there is none."""
        rows = self._items.rows(np.asarray(ids, np.int64))
        return np.where(rows >= 0, self._items["stability"][rows], np.float32(0))

    def stats(self) -> dict[str, Any]:
        s = self._items["stability"]
        return {
            "items": len(self),
            "cores": len(np.unique(self._items["core"][self._items["core"] >= 0])),
            "sleeps": self._sleeps,
            "indexed": 0 if self._index is None else len(self._index),
            "mean_stability": float(s.mean()) if len(s) else 0.0,
            "bytes": sum(a.nbytes for a in self._items.arrays().values()) + self.links.nbytes,
            "links": self.links.stats(),
        }

    def __len__(self) -> int:
        return len(self._items)

    # On disk.

    def save(self, path: str | Path) -> None:
        parts: dict[str, Any] = {"items": self._items.arrays(), "links": self.links.arrays()}
        if self._index is not None:
            parts["index"] = self._index.dump()
        metadata = {
            "memory": "topological",
            "config": self.config.model_dump(),
            "next_id": self._next_id,
            "next_episode": self._next_episode,
            "sleeps": self._sleeps,
        }
        store = Path(path).resolve()
        self._stored[store] = save_store(path, parts, metadata, after=self._stored.get(store))

    def load(self, path: str | Path) -> None:
        parts, given, generation = load_store(path)
        if given.get("memory") != "topological":
            raise MemoryStoreError(f"{path} is the store of another memory, {given.get('memory')!r}")
        metadata = fits(_Metadata, given, path, MemoryStoreError)
        for name in ("dim", "dtype"):
            theirs, ours = metadata.config.get(name), getattr(self.config, name)
            if theirs != ours:
                raise MemoryStoreError(f"the store {path} has {name}={theirs!r}, this memory has {name}={ours!r}")
        for name in ("items", "links"):
            if not isinstance(parts.get(name), dict):
                raise MemoryStoreError(f"the store {path} is damaged: it has no {name}.safetensors")
        with refusing(f"the store {path}", MemoryStoreError):
            items = Items.from_arrays(parts["items"], self.config.dim, metadata.next_id)
            links = LinkGraph.from_arrays(self.config.links, parts["links"])
        index = None
        if isinstance(parts.get("index"), bytes):
            index = self._new_index()
            index.restore(parts["index"], items["id"], items.keys)
        self._items, self.links, self._index = items, links, index
        self._next_id, self._next_episode = metadata.next_id, metadata.next_episode
        self._sleeps = metadata.sleeps
        self._steady = None
        self._stored = {Path(path).resolve(): generation}

    # Inside.

    def _new_index(self) -> GraphIndex:
        c = self.config
        return GraphIndex(c.dim, c.dtype, c.connectivity, c.expansion_add, c.expansion_search)

    def _search(self, queries: np.ndarray, k: int, mix: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores (Q, <= k) of the best, -1 and -inf where there are fewer."""
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        items, s = self._items, self._items["stability"]
        steady = self._most_stable()
        if len(items) <= self.config.exact_below or (mix < APPROXIMATE and len(steady)):
            return exact(items.keys, queries, k, mix, s)
        if self._index is None:
            self._index = self._new_index()
            self._index.add(items["id"], items.keys)
        rows = items.rows(self._index.search(queries, min(k * self.config.oversample, len(items))))
        if mix < 1 and len(steady):
            # The most stable items may win without being near.
            extra = np.broadcast_to(steady, (len(queries), len(steady)))
            rows = np.concatenate([rows, np.where((extra[:, :, None] == rows[:, None, :]).any(2), -1, extra)], axis=1)
        cos = np.einsum("qd,qcd->qc", queries, items.keys[rows])
        scores = np.where(rows >= 0, mix * cos + (1 - mix) * s[rows], -np.inf).astype(np.float32)
        best = top(scores, min(k, scores.shape[1]))
        return np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)

    def _most_stable(self) -> np.ndarray:
        """Rows of the few most stable items; none while all are at 0."""
        if self._steady is None:
            s = self._items["stability"]
            self._steady = np.argsort(-s, kind="stable")[:32] if s.any() else np.empty(0, np.int64)
        return self._steady

    def _rows_near(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self._search(self._items.keys[rows], k, 1.0)

    def _hits(self, rows: np.ndarray, scores: np.ndarray, k: int) -> Hits:
        missing = k - rows.shape[1]
        rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
        scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
        if not len(self):
            return Hits(rows, scores.astype(np.float32), rows.copy())
        there = rows >= 0
        ids = np.where(there, self._items["id"][rows], -1)
        return Hits(ids, scores.astype(np.float32), np.where(there, self._items["value"][rows], -1))

    def _drop(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        ids = self._items["id"][rows]
        if self._index is not None:
            self._index.remove(ids)
        self.links.forget_nodes(ids)
        keep = np.ones(len(self), bool)
        keep[rows] = False
        self._items.keep(keep)
        self._steady = None
