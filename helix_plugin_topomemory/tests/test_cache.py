"""Eviction policies: their books, their published behaviour, and where stability wins and loses."""

import sys
from pathlib import Path

import numpy as np
import pytest

from helix_core.errors import UsageError
from helix_plugin_topomemory.cache import POLICIES, FixedStabilityCache

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
    """Never more than the capacity, a hit exactly for what is held, and all hits once everything fits."""
    cache, trace = POLICIES[policy](20), rng.zipf(1.3, size=3000) % 100
    for key in trace.tolist():
        cache.access(key)
        assert len(cache) <= 20
    roomy = POLICIES[policy](400)
    seen = set()
    for key in (rng.permutation(100).tolist() + rng.integers(100, size=200).tolist()) * 2:
        hit = roomy.access(key)
        assert not hit or key in seen
        seen.add(key)
    assert len(roomy) >= 98 or policy == "tinylfu"
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


def test_eviction_takes_the_least_stable():
    """Against an exhaustive look at all entries, at a fixed half-life."""
    rng = np.random.default_rng(5)
    cache = FixedStabilityCache(30, 4.0)
    for key in (rng.zipf(1.2, size=4000) % 200).tolist():
        before = dict(cache._entries)
        cache.access(key)
        gone = before.keys() - cache._entries.keys()
        if gone:
            (victim,) = gone
            faded = {k: cache._faded(*entry) for k, entry in before.items()}
            assert faded[victim] <= min(faded.values()) * (1 + 1e-9)


def test_a_new_half_life_keeps_what_is_held(rng):
    cache = FixedStabilityCache(30, 4.0)
    for key in (rng.zipf(1.2, size=1000) % 200).tolist():
        cache.access(key)
    held = set(cache._entries)
    cache.rescale(0.5)
    assert set(cache._entries) == held
    assert sum(cache.access(key) for key in held) == len(held)
