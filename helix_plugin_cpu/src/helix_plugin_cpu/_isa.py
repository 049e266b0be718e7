"""Which instructions kernels are compiled to: the processor's, unless `HELIX_CPU_ISA` or Numba's settings say less."""

from __future__ import annotations

import functools
import os
from typing import Any

from helix_core.errors import ConfigError
from helix_core.suggest import did_you_mean

VARIABLE = "HELIX_CPU_ISA"
NARROW = {
    "avx2": (
        "haswell",
        "+avx,+avx2,+bmi,+bmi2,+cmov,+cx16,+f16c,+fma,+lzcnt,+mmx,+movbe,+popcnt,"
        "+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3",
    )
}
"""LLVM's processor and features of each set that can be asked for; `native` is what the processor has."""
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "neon": "NEON"}


@functools.cache
def features() -> frozenset[str]:
    """LLVM's names of the features that Numba's code may use, after `HELIX_CPU_ISA` has been applied.

    Raises ConfigError for an unknown set, and for one that this processor lacks.
    """
    import numba
    from llvmlite import binding

    config: Any = numba.config

    native = frozenset(name for name, has in binding.get_host_cpu_features().items() if has)
    asked = os.environ.get(VARIABLE, "native")
    if asked not in {*NARROW, "native"}:
        raise ConfigError(
            f"{VARIABLE}={asked!r} is no instruction set{did_you_mean(asked, [*NARROW, 'native'])}",
            hint=f"set it to {' or '.join([*NARROW, 'native'])}",
        )
    if asked != "native" and config.CPU_FEATURES is None:
        name, wanted = NARROW[asked]
        if missing := _enabled(wanted) - native:
            raise ConfigError(
                f"{VARIABLE}={asked}, and this processor has no {', '.join(sorted(missing))}",
                hint=f"unset {VARIABLE}: kernels are then compiled for this processor",
            )
        config.CPU_NAME, config.CPU_FEATURES = name, wanted
    return native if config.CPU_FEATURES is None else _enabled(config.CPU_FEATURES)


def _enabled(flags: str) -> frozenset[str]:
    return frozenset(flag[1:] for flag in flags.split(",") if flag.startswith("+"))


def vectors() -> str:
    """The widest vectors that kernels are compiled to, for `helix doctor`.

    >>> vectors() in {"AVX-512", "AVX2", "AVX", "SVE", "NEON", "baseline"}
    True
    """
    return next((name for feature, name in VECTORS.items() if feature in features()), "baseline")
