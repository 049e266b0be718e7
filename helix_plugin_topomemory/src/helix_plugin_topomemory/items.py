"""The items of a memory: columns side by side, in the order of their ids."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from helix_plugin_topomemory.checked import checked

MOST_ITEMS = 2**53
"""Most ids, episodes or sleeps of a memory's life."""
COLUMNS: dict[str, type] = {
    "id": np.int64,
    "value": np.int64,
    "episode": np.int64,
    "core": np.int64,  # -1: in no core
    "uses": np.float32,  # decayed: stored, confirmed
    "shown": np.float32,  # decayed: offered, whether or not it was of use
    "stability": np.float32,
    "change": np.float32,  # of stability, at the last sleep
    "age": np.int64,  # sleeps since it was stored or last of use
}


RANGES: dict[str, tuple[float, float]] = {
    "id": (0, MOST_ITEMS),
    "value": (-(2**63), 2**63 - 1),
    "episode": (0, MOST_ITEMS),
    "core": (-1, MOST_ITEMS),
    "uses": (0, 2**53),
    "shown": (0, 2**53),
    "stability": (0, 1.001),
    "change": (-1.001, 1.001),
    "age": (0, MOST_ITEMS),
}
"""Least and greatest values that columns can have."""


class Items:
    """Columns that grow; `keys` (N, D) are unit vectors."""

    def __init__(self, dim: int) -> None:
        self._keys = np.empty((0, dim), np.float32)
        self._columns: dict[str, np.ndarray] = {name: np.empty(0, kind) for name, kind in COLUMNS.items()}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def keys(self) -> np.ndarray:
        """The keys (N, D) of all items."""
        return self._keys[: self._count]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name][: self._count]

    def append(self, keys: np.ndarray, **columns: np.ndarray) -> None:
        """Add rows; columns that are not given are 0."""
        old, new = self._count, self._count + len(keys)
        if new > len(self._keys):
            room = max(new, old + old // 2)
            self._keys = _grown(self._keys, room)
            self._columns = {name: _grown(column, room) for name, column in self._columns.items()}
        self._keys[old:new] = keys
        for name, column in self._columns.items():
            column[old:new] = columns.get(name, 0)
        self._count = new

    def keep(self, mask: np.ndarray) -> None:
        """Drop the rows where `mask` is False."""
        self._keys = self.keys[mask]
        self._columns = {name: self[name][mask] for name in COLUMNS}
        self._count = len(self._keys)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The row of each id, -1 where there is none."""
        known = self["id"]
        if not len(known):
            return np.full(np.shape(ids), -1, np.int64)
        at = np.searchsorted(known, ids).clip(max=len(known) - 1)
        return np.where(known[at] == ids, at, -1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every column by name, as files hold them."""
        return {"keys": self.keys, **{name: self[name] for name in COLUMNS}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], dim: int, next_id: int) -> Items:
        """The items that `arrays` gave. Raises ValueError for arrays that are none of keys (N, dim) and older ids."""
        count = len(arrays["id"]) if "id" in arrays and arrays["id"].ndim else 0
        keys = checked(arrays, "keys", np.float32, shape=(count, dim), least=-1.001, most=1.001)
        columns = {
            name: checked(arrays, name, kind, shape=(count,), least=RANGES[name][0], most=RANGES[name][1])
            for name, kind in COLUMNS.items()
        }
        if count and (columns["id"][-1] >= next_id or (np.diff(columns["id"]) <= 0).any()):
            raise ValueError(f"its ids do not rise to the last one given out, {next_id - 1}")
        items = cls(dim)
        items.append(keys, **columns)
        return items


def _grown(array: np.ndarray, room: int) -> np.ndarray:
    grown = np.empty((room, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
