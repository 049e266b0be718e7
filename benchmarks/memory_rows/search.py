"""One million vectors: recall@10 against exact search, latency, time to index, for cosine and for the mixed score."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from helix_core import create
from helix_plugin_topomemory.index import exact, unit

DIM, QUERIES = 64, 500


def run(*, small: bool) -> dict[str, Any]:
    count = 100_000 if small else 1_000_000
    rng = np.random.default_rng(0)
    # Clustered, as embeddings are: 4096 centres with as much spread around each as between them.
    centres = rng.normal(size=(4096, DIM)).astype(np.float32)
    draw = lambda n: centres[rng.integers(4096, size=n)] + rng.normal(size=(n, DIM)).astype(np.float32)  # noqa: E731
    keys, queries = draw(count), unit(draw(QUERIES))
    memory = create("memory", "topological", dim=DIM, mix=1.0, exact_below=0, expansion_search=200)
    memory.add(keys)
    began = time.perf_counter()
    memory.query(queries[:1], 10)  # builds the index
    indexing = time.perf_counter() - began
    stability = rng.beta(1, 4, size=count).astype(np.float32)
    began = time.perf_counter()
    truth, _ = exact(unit(keys), queries, 10, 1.0, stability)
    exact_seconds = (time.perf_counter() - began) / QUERIES
    found = memory.query(queries, 10).ids
    result = {
        "vectors": count,
        "dim": DIM,
        "recall_at_10": _recall(found, truth),
        "indexing_s": indexing,
        "latency_ms": _latency(memory, queries),
        "exact_latency_ms_in_batches": 1e3 * exact_seconds,
    }
    memory._items["stability"][:] = stability
    for mix in (0.9,):
        mixed = create("memory", "topological", dim=DIM, mix=mix, exact_below=0, oversample=30)
        mixed._items, mixed._index, mixed._steady = memory._items, memory._index, None
        truth, _ = exact(unit(keys), queries[:100], 10, mix, stability)
        result[f"recall_at_10_mix_{mix}"] = _recall(mixed.query(queries[:100], 10).ids, truth)
    return result


def _recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)]))


def _latency(memory: Any, queries: np.ndarray) -> dict[str, float]:
    times = []
    for query in queries:
        began = time.perf_counter()
        memory.query(query, 10)
        times.append(1e3 * (time.perf_counter() - began))
    return {"p50": float(np.percentile(times, 50)), "p95": float(np.percentile(times, 95))}
