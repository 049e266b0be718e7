"""What a benchmark measures: a piece of work, our way of doing it, its peers', and the limit of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}
"""glibc maps every block over 32 MB anew, and zeroing the pages takes as long as the work: torch peers run with this,
and the ratio is to the tuned peer. Ours runs without."""


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    factory   "module:function"; `function(**options)` prepares everything and returns `run()`, which does the work
              once and returns arrays (or nothing). A factory that lacks something raises `NotHere(reason)`.
    check     compare what `run()` returned with what ours returned
    once      a sample is what `run()` returns, in seconds: for programs that time themselves
    """

    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    check: bool = True
    once: bool = False


class NotHere(Exception):
    """A peer cannot run on this machine; its row says why."""


@dataclass(frozen=True)
class Limit:
    """The least the machine needs: the longest of its parts, at the rates that `machine` measures.

    flops       at the rate of a float32 matrix product
    bytes       at the rate of reading memory, on all threads
    multiplies  products and multiply-adds of sixteen floats, at the rate of independent ones
    vector_ops  all arithmetic on vectors of sixteen floats, at the rate of additions mixed with multiply-adds
    seconds     anything else, worked out from the rates
    """

    flops: float = 0.0
    bytes: float = 0.0
    multiplies: float = 0.0
    vector_ops: float = 0.0
    seconds: Callable[[Mapping[str, float]], float] | None = None

    def at(self, rates: Mapping[str, float]) -> float:
        """Seconds."""
        parts = [
            self.flops / rates["gemm_flops_per_s"],
            self.bytes / rates["read_bytes_per_s"],
            self.multiplies / rates["multiplies_per_s"],
            self.vector_ops / rates["vector_ops_per_s"],
        ]
        return max([*parts, self.seconds(rates) if self.seconds else 0.0])


@dataclass(frozen=True)
class Row:
    """A piece of work done side by side.

    targets   the ratio peer / ours to reach, by peer; "best" stands for the quickest of all peers
    memory    the ratio of peak extra memory to reach, by peer
    limit     what the machine needs at least, and the fraction of it to reach
    tolerance largest difference from a peer's result, relative to its largest value
    """

    work: str
    ours: Side
    peers: Mapping[str, Side] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    limit: Limit | None = None
    limit_target: float | None = None
    tolerance: float = 1e-4
