"""Which vector instructions kernels are compiled to, for `helix doctor`."""

from __future__ import annotations


def vectors() -> str:
    """The widest set that Numba compiles for here: its own settings (NUMBA_CPU_FEATURES, ...) count."""
    from llvmlite import binding
    from numba import config

    if config.CPU_FEATURES is not None:
        features = {f[1:] for f in config.CPU_FEATURES.split(",") if f.startswith("+")}
    elif config.CPU_NAME:
        return f"those of {config.CPU_NAME}"
    else:
        features = {name for name, there in binding.get_host_cpu_features().items() if there}
    for feature, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX"), ("sve", "SVE"), ("neon", "NEON")):
        if feature in features:
            return name
    return "baseline"
