"""The instruction sets that machine code is prepared for."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection
from dataclasses import dataclass

AVX2 = ("avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse4.2")
AVX512 = (*AVX2, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


@dataclass(frozen=True)
class Target:
    """A level of processors, by LLVM's names.

    needs   features without which its code would stop the process
    wide    whether kernels use the tiles of AVX-512: code and the caller's sizes have to agree
    flags   LLVM's features, beside those of the processor `cpu`
    abi     LLVM's name of the calling convention, where a machine has several
    """

    name: str
    machine: str
    cpu: str
    needs: tuple[str, ...]
    wide: bool = False
    flags: str = ""
    abi: str = ""

    @property
    def triple(self) -> str:
        """LLVM's name of machine and system."""
        return f"{self.machine}-unknown-linux-gnu"


TARGETS = {
    target.name: target
    for target in (
        Target("x86-64-v3", "x86_64", "x86-64-v3", AVX2),
        # Kernels say themselves how wide their vectors are.
        Target("x86-64-v4", "x86_64", "x86-64-v4", AVX512, wide=True, flags="-prefer-256-bit"),
        Target("aarch64", "aarch64", "generic", ("neon",), flags="+neon"),
    )
}


def target_for(features: Collection[str]) -> Target | None:
    """Return the target whose code a processor with these features runs as its own; None if there is none.

    >>> target_for({"sse2"}) is None
    True
    """
    if not sys.platform.startswith("linux"):
        return None
    wide = "avx512f" in features
    suits = (t for t in TARGETS.values() if t.machine == platform.machine() and t.wide == wide)
    return next((t for t in suits if set(t.needs) <= set(features)), None)
