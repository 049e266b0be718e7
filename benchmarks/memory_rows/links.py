"""Ten million links: memory, observations per second (ticks included), and a dict of counts beside it."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np

from helix_plugin_topomemory.links import LinkConfig, LinkGraph

GIB = 2**30


def run(*, small: bool) -> dict[str, Any]:
    count = 1_000_000 if small else 10_000_000
    nodes, batch = count // 10, 1_000_000
    rng = np.random.default_rng(0)
    # Compile first, on another graph.
    warm = LinkGraph()
    warm.observe([0], [1])
    warm.advance()
    before = _resident()
    # One observation makes a link here, so that every tick computes every link's evidence.
    graph = LinkGraph(LinkConfig(max_links=count, min_count=0, g2=0))
    # `count` different pairs: every node has ten targets.
    source = np.repeat(np.arange(nodes, dtype=np.int32), 10)
    target = np.concatenate([rng.permutation(nodes).astype(np.int32) for _ in range(10)]).reshape(10, nodes).T.ravel()
    began = time.perf_counter()
    for begin in range(0, count, batch):
        graph.observe(source[begin : begin + batch], target[begin : begin + batch])
    filling = time.perf_counter() - began
    held = len(graph)
    chosen = rng.integers(count, size=5 * batch)
    began = time.perf_counter()
    for begin in range(0, len(chosen), batch):
        some = chosen[begin : begin + batch]
        graph.observe(source[some], target[some])
    observing = time.perf_counter() - began
    graph.advance()
    began = time.perf_counter()
    graph.advance()
    tick = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "links": held,
        "table_bytes": graph.nbytes,
        "bytes_per_link": graph.nbytes / held,
        "peak_bytes_over_start": peak - before,
        "under_1_gib": peak - before < GIB,
        "fill_observations_per_s": count / filling,
        "observations_per_s": len(chosen) / observing,
        "tick_s": tick,
        "observations_per_s_with_a_tick_per_observation_of_every_link": 1 / (observing / len(chosen) + tick / held),
        "stats": graph.stats(),
        "dict_observations_per_s": _dict_speed(source, target, chosen[:batch]),
    }


def _dict_speed(source: np.ndarray, target: np.ndarray, chosen: np.ndarray) -> float:
    """The peer: counting the same pairs in a dict, which updates no stability at all."""
    pairs = list(zip(source[chosen].tolist(), target[chosen].tolist(), strict=True))
    counts: dict[tuple[int, int], int] = {}
    began = time.perf_counter()
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + 1
    return len(pairs) / (time.perf_counter() - began)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
