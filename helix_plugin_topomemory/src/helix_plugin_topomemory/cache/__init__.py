"""Stability as an eviction policy, and the policies it is measured against."""

from helix_plugin_topomemory.cache.policies import ARC, LFU, LRU, Policy, TinyLFU
from helix_plugin_topomemory.cache.stability import FixedStabilityCache, StabilityCache

POLICIES: dict[str, type[Policy]] = {
    "lru": LRU,
    "lfu": LFU,
    "arc": ARC,
    "tinylfu": TinyLFU,
    "stability": StabilityCache,
}

__all__ = ["ARC", "LFU", "LRU", "POLICIES", "FixedStabilityCache", "Policy", "StabilityCache", "TinyLFU"]
