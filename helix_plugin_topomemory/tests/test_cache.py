"""Eviction policies: their books, their published behaviour, and where stability wins and loses."""

import copy
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from helix_core.errors import UsageError
from helix_plugin_topomemory.cache import POLICIES, FixedStabilityCache
from helix_plugin_topomemory.cache.stability import RATIOS

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from memory_rows import traces

LENGTH, KEYS = 20_000, 5000


@pytest.fixture(scope="module")
def rates():
    """Hit rates by trace and policy, at 250 of 5000 keys."""
    found = {}
    for name in ("zipf", "scan_mixed", "shifting", "loop", "recency"):
        trace = traces.TRACES[name](np.random.default_rng(1), LENGTH, KEYS).tolist()
        found[name] = {policy: cls(250).hit_rate(trace, LENGTH // 10) for policy, cls in POLICIES.items()}
    return found


@pytest.mark.parametrize("policy", POLICIES)
def test_books_are_kept(rng, policy):
    """Never more than the capacity, and where everything fits a hit for every key that was asked for before."""
    cache, trace = POLICIES[policy](20), rng.zipf(1.3, size=3000) % 100
    for key in trace.tolist():
        cache.access(key)
        assert len(cache) <= 20
    roomy = POLICIES[policy](400)
    seen = set()
    for key in (rng.permutation(100).tolist() + rng.integers(100, size=200).tolist()) * 2:
        assert roomy.access(key) == (key in seen)
        seen.add(key)
        assert len(roomy) == len(seen)
    with pytest.raises(UsageError, match="capacity"):
        POLICIES[policy](0)


def test_lru_is_lru():
    cache = POLICIES["lru"](2)
    assert [cache.access(k) for k in (1, 2, 1, 3, 2, 1)] == [False, False, True, False, False, False]


def test_published_behaviour_of_the_peers(rates):
    assert rates["zipf"]["lfu"] > rates["zipf"]["lru"] + 0.03
    assert rates["zipf"]["tinylfu"] > rates["zipf"]["lru"] + 0.03
    assert rates["scan_mixed"]["arc"] > rates["scan_mixed"]["lru"] + 0.02, "ARC resists scans"
    assert rates["shifting"]["lru"] > rates["shifting"]["lfu"] + 0.05, "LFU clings to the past"
    assert rates["loop"]["lru"] == 0
    assert rates["recency"]["lru"] > rates["recency"]["tinylfu"] + 0.05


def test_stability_is_near_the_best_everywhere(rates):
    """Better than LRU where frequency counts, better than LFU where time does, and never far behind the best."""
    for name in ("zipf", "scan_mixed"):
        assert rates[name]["stability"] > rates[name]["lru"] + 0.03
    for name in ("shifting", "recency"):
        assert rates[name]["stability"] > rates[name]["lfu"] + 0.05
    for name in ("zipf", "scan_mixed", "shifting", "recency"):
        assert rates[name]["stability"] > max(rates[name].values()) - 0.04


def held(cache, keys):
    """The keys that would be hits."""
    return {key for key in keys if copy.deepcopy(cache).access(key)}


def test_eviction_takes_the_least_stable():
    """Against an exhaustive look at all entries, at a fixed half-life; keys that are not held are not remembered."""
    trace = (np.random.default_rng(5).zipf(1.2, size=4000) % 200).tolist()
    cache = FixedStabilityCache(30, 4.0, margin=0.0, ghosts=0.0)
    hits, uses, states = [], {}, {}
    for key in trace:
        uses = {k: n * 0.5 ** (1 / (4 * 30 * RATIOS[states[k]])) for k, n in uses.items()}
        hits.append(key in uses)
        n, state = uses.get(key, 0) + 1, states.get(key, 0)
        signal = 1 - math.exp(-n / 5)
        while state < 2 and signal >= (0.3, 0.5)[state]:
            state += 1
        while state > 0 and signal < (0.2, 0.4)[state - 1]:
            state -= 1
        if key not in uses and len(uses) == 30 and min(uses.values()) <= n:
            victim = min(uses, key=uses.__getitem__)
            del uses[victim], states[victim]
        if key in uses or len(uses) < 30:
            uses[key], states[key] = n, state
    assert [cache.access(key) for key in trace] == hits
    assert held(cache, range(200)) == uses.keys()
    assert set(states.values()) == {0, 1, 2}


def test_a_new_half_life_keeps_what_is_held(rng):
    cache = FixedStabilityCache(30, 4.0)
    for key in (rng.zipf(1.2, size=1000) % 200).tolist():
        cache.access(key)
    before = held(cache, range(200))
    assert len(before) == len(cache) == 30
    cache.rescale(0.5)
    assert held(cache, range(200)) == before
