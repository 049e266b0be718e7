"""Memories with one fault each, which the memory kit must find."""

from pathlib import Path

import numpy as np

from helix_core.errors import MemoryStoreError
from helix_core.kinds.memory import Hits, Memory, check_keys, check_values
from helix_plugin_lm.storage.store import load_store, save_store


class Right(Memory):
    """Exact search by cosine, without a fault."""

    def __init__(self, config):
        super().__init__(config)
        self.keys = np.empty((0, config.dim), np.float32)
        self.ids = self.values = np.empty(0, np.int64)
        self.next_id = 0
        self.stored = {}

    def add(self, keys, values=None):
        keys = check_keys(keys, self.config.dim)
        values = check_values(values, len(keys))
        ids = np.arange(self.next_id, self.next_id + len(keys))
        self.next_id += len(keys)
        self.keys = np.concatenate([self.keys, self.unit(keys)])
        self.ids = np.concatenate([self.ids, ids])
        self.values = np.concatenate([self.values, ids if values is None else values])
        return ids

    def unit(self, keys):
        return keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-30)

    def query(self, keys, k=10):
        scores = self.unit(check_keys(keys, self.config.dim)) @ self.keys.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        lacking = [(0, 0), (0, k - best.shape[1])]
        return Hits(
            np.pad(self.ids[best], lacking, constant_values=-1),
            np.pad(np.take_along_axis(scores, best, 1), lacking, constant_values=-np.inf),
            np.pad(self.values[best], lacking, constant_values=-1),
        )

    def consolidate(self):
        return {"items": len(self)}

    def forget(self, ids):
        kept = ~np.isin(self.ids, ids)
        removed = len(self) - int(kept.sum())
        self.keys, self.ids, self.values = self.keys[kept], self.ids[kept], self.values[kept]
        return removed

    def save(self, path):
        arrays = {"keys": self.keys, "ids": self.ids, "values": self.values}
        metadata, store = {"dim": self.config.dim, "next_id": self.next_id}, Path(path).resolve()
        self.stored[store] = save_store(store, {"items": arrays}, metadata, after=self.stored.get(store))

    def load(self, path):
        parts, metadata, generation = load_store(path)
        if metadata["dim"] != self.config.dim:
            raise MemoryStoreError(f"the store has dim = {metadata['dim']}")
        self.keys, self.ids, self.values = (parts["items"][name] for name in ("keys", "ids", "values"))
        self.next_id = metadata["next_id"]
        self.stored = {Path(path).resolve(): generation}

    def stats(self):
        return {"items": len(self)}

    def __len__(self):
        return len(self.ids)


class ReusesIds(Right):
    """After a reload it counts on from the last id that is left."""

    def load(self, path):
        super().load(path)
        self.next_id = int(self.ids.max(initial=-1)) + 1


class KeepsKeys(Right):
    """The first keys are kept as they were given, not copied."""

    def add(self, keys, values=None):
        first = not len(self)
        ids = super().add(keys, values)
        if first and isinstance(keys, np.ndarray) and keys.dtype == np.float32 and keys.ndim == 2:
            self.keys = keys
        return ids


class HandsOutIds(Right):
    """The ids that it returns are those that it holds."""

    def add(self, keys, values=None):
        ids = super().add(keys, values)
        return self.ids if len(ids) == len(self) else ids


class NarrowsValues(Right):
    def add(self, keys, values=None):
        return super().add(keys, None if values is None else np.float64(check_values(values, len(keys))).astype(int))


class LosesValuesOnDisk(Right):
    def load(self, path):
        super().load(path)
        self.values = self.values.astype(np.int32).astype(np.int64)


class WideScores(Right):
    def query(self, keys, k=10):
        hits = super().query(keys, k)
        return Hits(hits.ids, hits.scores.astype(np.float64), hits.values)


class CountsTwice(Right):
    def forget(self, ids):
        known = int(np.isin(ids, self.ids).sum())
        super().forget(ids)
        return known


class SavesAndClears(Right):
    def save(self, path):
        super().save(path)
        self.keys, self.ids, self.values = self.keys[:0], self.ids[:0], self.values[:0]


class ReadsPacked(Right):
    """Takes keys by their bytes."""

    def add(self, keys, values=None):
        if isinstance(keys, np.ndarray) and keys.ndim == 2 and keys.base is not None and not keys.flags.c_contiguous:
            keys = keys.base[: len(keys), : keys.shape[1]]
        return super().add(keys, values)
