"""Hit rates of eviction by stability beside LRU, LFU, ARC and W-TinyLFU, on six kinds of traces and two sizes."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from helix_plugin_topomemory.cache import POLICIES
from memory_rows.traces import TRACES

KEYS = 20_000


def run(*, small: bool) -> dict[str, Any]:
    length, seeds = (20_000, 1) if small else (150_000, 3)
    rows = []
    for name, make in TRACES.items():
        for capacity in (200, 1000):
            rates: dict[str, list[float]] = {policy: [] for policy in POLICIES}
            for seed in range(seeds):
                rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
                trace = make(rng, length, KEYS).tolist()
                for policy, cls in POLICIES.items():
                    rates[policy].append(cls(capacity).hit_rate(trace, skip=length // 10))
            mean = {policy: float(np.mean(values)) for policy, values in rates.items()}
            others = {policy: rate for policy, rate in mean.items() if policy != "stability"}
            best = max(others, key=lambda policy: others[policy])
            rows.append(
                {
                    "trace": name,
                    "capacity": capacity,
                    **{policy: round(rate, 4) for policy, rate in mean.items()},
                    "best_other": best,
                    "stability_minus_best_other": round(mean["stability"] - others[best], 4),
                }
            )
            print(rows[-1], flush=True)
    return {"keys": KEYS, "requests": length, "seeds": seeds, "rows": rows}
