"""What a device must do: hold buffers, run programs, and count what goes in and out."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from helix_core.errors import UsageError
from helix_device_arrays.program import Program

KEPT = 1 << 28
"""Bytes of free buffers that are kept for reuse."""


@dataclass
class Traffic:
    """What went over to a device and back since it was opened, and what ran there."""

    uploads: int = 0
    uploaded_bytes: int = 0
    downloads: int = 0
    downloaded_bytes: int = 0
    launches: int = 0
    programs: int = 0

    def snapshot(self) -> dict[str, int]:
        """The counts now, by name."""
        return asdict(self)


Call = tuple[Program, list["Buffer"], list[int], int]
"""A launch: a program, its buffers and numbers, and how many work-groups."""


class Buffer:
    """Memory on a device; goes back to it when nobody refers to it any more."""

    __slots__ = ("__weakref__", "nbytes", "raw")

    def __init__(self, raw: Any, nbytes: int) -> None:
        self.raw, self.nbytes = raw, nbytes


class Device(ABC):
    """One queue on one device, in order: a program sees what those before it wrote.

    kind       "cpu" or "gpu"
    name       what its driver calls it
    lanes      floats of a `vec` that suit it
    width      items of a work-group that suit it
    rows       items that share a row in reductions; 1 where each has its own
    apart      items of a work-group that each walk through time, or along a row, by themselves
    vectors    a processor's driver: items take vectors of channels, and no work is shared through a work-group
    """

    kind: str = "gpu"
    name: str = ""
    lanes: int = 4
    width: int = 64
    rows: int = 64
    apart: int = 64
    vectors: bool = False
    max_buffers: int = 8
    max_bytes: int = 1 << 31
    halves: bool = False

    def __init__(self) -> None:
        self.traffic = Traffic()
        self._programs: dict[Program, Any] = {}
        self._free: dict[int, list[Any]] = {}
        self._free_bytes = 0
        self.namespace: Any = None  # the functions on its arrays, set by the backend
        self.record: list[Call] | None = None  # launches are listed here while a step is recorded
        self.tables: dict[tuple[str, int], Buffer] = {}

    @abstractmethod
    def _allocate(self, nbytes: int) -> Any:
        """New memory."""

    @abstractmethod
    def _write(self, raw: Any, array: np.ndarray) -> None:
        """Copy a contiguous array into memory."""

    @abstractmethod
    def _read(self, raw: Any, array: np.ndarray) -> None:
        """Wait, and copy the first bytes of memory into a contiguous array."""

    @abstractmethod
    def _compile(self, program: Program) -> Any:
        """A program in the device's own form."""

    @abstractmethod
    def _run(self, compiled: Any, program: Program, raws: list[Any], params: Sequence[int], groups: int) -> None:
        """Queue `groups` work-groups of a program."""

    @abstractmethod
    def finish(self) -> None:
        """Wait until all that is queued is done."""

    def allocate(self, nbytes: int) -> Buffer:
        """Memory with any content."""
        if nbytes > self.max_bytes:
            raise UsageError(
                f"an array of {nbytes:,} bytes is more than {self.name} takes at once ({self.max_bytes:,})",
                hint="use a smaller batch or fewer tokens at a time",
            )
        step = max(256, 1 << max(nbytes.bit_length() - 3, 0))
        rounded = -(-max(nbytes, 1) // step) * step
        ready = self._free.get(rounded)
        if ready:
            raw = ready.pop()
            self._free_bytes -= rounded
        else:
            raw = self._allocate(rounded)
        buffer = Buffer(raw, rounded)
        weakref.finalize(buffer, self._recycle, raw, rounded).atexit = False
        return buffer

    def _recycle(self, raw: Any, nbytes: int) -> None:
        if self._free_bytes + nbytes <= KEPT:
            self._free.setdefault(nbytes, []).append(raw)
            self._free_bytes += nbytes

    def prepared(self, program: Program, buffers: Sequence[Buffer], params: Sequence[int], groups: int) -> Any:
        """A function that queues this launch again and again."""
        raws = [b.raw for b in buffers]
        return lambda: self._run(self._programs[program], program, raws, params, groups)

    def overwrite(self, buffer: Buffer, array: np.ndarray) -> None:
        """Put other numbers into a buffer, behind what is queued."""
        self._write(buffer.raw, array)
        self.traffic.uploads += 1
        self.traffic.uploaded_bytes += array.nbytes

    def upload(self, array: np.ndarray) -> Buffer:
        """A copy on the device of a contiguous array."""
        buffer = self.allocate(array.nbytes)
        if array.nbytes:
            self._write(buffer.raw, array)
            self.traffic.uploads += 1
            self.traffic.uploaded_bytes += array.nbytes
        return buffer

    def download(self, buffer: Buffer, array: np.ndarray) -> np.ndarray:
        """Fill a contiguous array from a buffer."""
        if array.nbytes:
            self._read(buffer.raw, array)
            self.traffic.downloads += 1
            self.traffic.downloaded_bytes += array.nbytes
        return array

    def launch(self, program: Program, buffers: Sequence[Buffer], params: Sequence[int], groups: int) -> None:
        """Queue a program; buffers and params in the order it names them."""
        if groups < 1:
            return
        compiled = self._programs.get(program)
        if compiled is None:
            compiled = self._programs[program] = self._compile(program)
            self.traffic.programs += 1
        self.traffic.launches += 1
        if self.record is not None:
            self.record.append((program, list(buffers), list(params), groups))
        self._run(compiled, program, [b.raw for b in buffers], params, groups)
