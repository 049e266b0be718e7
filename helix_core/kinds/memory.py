"""What a memory is: items with a key and a value, found by similarity, consolidated, forgotten, kept on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from helix_core.errors import UsageError

Ids = NDArray[np.int64]
Keys = NDArray[np.float32]


class MemoryConfig(BaseModel):
    """Fields every memory has; a memory's own config adds to them. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(gt=0, description="width of the keys")


@dataclass(frozen=True)
class Hits:
    """What a query found, best first; where there are fewer than k items: id -1, value -1, score -inf.

    ids     (Q, k) int64
    scores  (Q, k) float32; higher is better
    values  (Q, k) int64
    """

    ids: Ids
    scores: NDArray[np.float32]
    values: NDArray[np.int64]


ConfigT = TypeVar("ConfigT", bound=MemoryConfig)


class Memory(ABC, Generic[ConfigT]):
    """Items: a key (D,), a value (an int64: a token, a row number, whatever the user points at), and an id.

    Ids are never given twice. A call that raises has changed nothing. Keys that are not finite or of another width
    are refused with UsageError (`check_keys` does it).
    """

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def add(self, keys: ArrayLike, values: ArrayLike | None = None) -> Ids:
        """Store keys (N, D), in their order in time, with values (N,) (default: the ids); the new ids (N,)."""

    @abstractmethod
    def query(self, keys: ArrayLike, k: int = 10) -> Hits:
        """The k best items for each of keys (Q, D). Asking changes nothing."""

    @abstractmethod
    def consolidate(self) -> dict[str, Any]:
        """Let the memory reorganise itself ("sleep"): replay, merge, prune. Says what it did, in numbers."""

    @abstractmethod
    def forget(self, ids: ArrayLike) -> int:
        """Remove items; the number removed. Ids that are not there are passed over."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write everything to the folder `path`; a kill at any moment leaves the store of before or the new one.

        Raises MemoryStoreError if it cannot be written, or if another writer has saved there since this memory was
        loaded from it or saved to it, InUse while one does; the store of before is then untouched.
        """

    @abstractmethod
    def load(self, path: str | Path) -> None:
        """Replace the content with that of a store.

        Raises MemoryStoreError if it is missing, damaged or of another configuration; the content is then kept.
        """

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Numbers about the content; `items` is among them."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""


def check_keys(keys: ArrayLike, dim: int) -> Keys:
    """keys as float32 (N, D); one key (D,) becomes (1, D). Raises UsageError if that cannot be."""
    try:
        array = np.asarray(keys, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"keys must be numbers in an array (N, {dim}): {error}") from error
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != dim:
        raise UsageError(
            f"keys must have the shape (N, {dim}), not {np.shape(keys)}", hint=f"this memory has dim={dim}"
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise UsageError(
            f"{len(bad)} of {len(array)} keys hold NaN or infinity, the first in row {bad[0]}",
            hint="nothing was stored; a model that overflowed is the usual cause",
        )
    return array


def check_values(values: ArrayLike | None, count: int) -> NDArray[np.int64] | None:
    """values as int64 (N,), or None. Raises UsageError if they are not integers or not one for each key."""
    if values is None:
        return None
    array = np.atleast_1d(np.asarray(values))
    if array.shape != (count,) or (count and not np.issubdtype(array.dtype, np.integer)):
        raise UsageError(f"values must be {count} integers, one for each key, not {array.dtype} {array.shape}")
    return array.astype(np.int64)
