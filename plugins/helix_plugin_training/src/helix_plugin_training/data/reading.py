"""The bytes of a file, read as they are asked for.

A file is not mapped: were it to shrink, touching what is gone would kill the process. It is not kept open either: a
corpus may have more files than a process may have descriptors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from helix_core.errors import DataError

BLOCK = 1 << 20


@dataclass(frozen=True)
class FileBytes:
    """Bytes `start` to `stop` of a file, as if they were a uint8 array (N,): indexed, cut, compared and copied.

    Every access raises DataError if the file cannot be read or has become too short.
    """

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @overload
    def __getitem__(self, key: int) -> np.uint8: ...

    @overload
    def __getitem__(self, key: slice) -> np.ndarray: ...

    def __getitem__(self, key: int | slice) -> np.ndarray | np.uint8:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                raise ValueError(f"bytes of a file are read one after the other, not in steps of {step}")
            return self._read(start, max(start, stop))
        at = range(len(self))[key]
        byte: np.uint8 = self._read(at, at + 1)[0]
        return byte

    def part(self, start: int, stop: int) -> FileBytes:
        """Bytes `start` to `stop` of these, not read yet."""
        return FileBytes(self.path, self.start + start, self.start + stop)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def tobytes(self) -> bytes:
        """All bytes, read now."""
        return self._read(0, len(self)).tobytes()

    __bytes__ = tobytes

    def __getattr__(self, name: str) -> Any:
        # Whatever else an array has, that of them all.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self[:], name)

    def digest(self) -> bytes:
        """A hash of all of them."""
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(self), BLOCK):
            digest.update(self._read(start, min(start + BLOCK, len(self))).data)
        return digest.digest()

    def _read(self, start: int, stop: int) -> np.ndarray:
        found = np.empty(stop - start, np.uint8)
        missing = found.data
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.start + start)
                # One call may give less than was asked for: Linux ends each at 2 GiB.
                while missing and (count := file.readinto(missing)):
                    missing = missing[count:]
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}") from error
        if missing:
            raise DataError(
                f"{self.path} has become shorter: it ends before byte {self.start + stop:,}, and had {self.stop:,} "
                "when reading began",
                hint="data must not change while they are in use; restore the file, or begin anew",
            )
        return found
