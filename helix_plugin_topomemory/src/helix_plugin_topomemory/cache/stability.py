"""Eviction by stability: what was of use often and lately stays; U, I and S entries fade at different rates."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict

from helix_plugin_topomemory.cache.policies import Policy

U, I, S = 0, 1, 2  # noqa: E741
RATIOS = 1.0, 34.3 / 13.5, 69.0 / 13.5
"""Half-lives of I and S entries over that of U entries, as the links have them."""
SCALES = 0.0625, 0.25, 1.0, 4.0, 16.0, 64.0
"""Half-lives of U entries that are tried, in accesses per capacity."""
SAMPLE = 8
"""One key in so many takes part in the trials."""


class FixedStabilityCache(Policy):
    """The repetition signal of the links, R = 1 - exp(-n/n0), on cache entries; the smallest R is evicted.

    n counts accesses and halves every half-life, which depends on the entry's state. States rise at theta_low and
    theta_high of R and fall `hysteresis` below. A newcomer must beat the entry it would evict by `margin`, or is passed
    by. Keys that are not held are remembered for `ghosts` capacities with their n. Within a state log n + t/half-life
    orders entries for good, so the smallest is the head of one of three heaps.

    scale  half-life of U entries in accesses per capacity
    """

    def __init__(
        self,
        capacity: int,
        scale: float = 4.0,
        *,
        n0: float = 5.0,
        theta_low: float = 0.3,
        theta_high: float = 0.5,
        hysteresis: float = 0.1,
        margin: float = 0.1,
        ghosts: float = 4.0,
    ) -> None:
        super().__init__(capacity)
        self.scale = scale
        self._rise = [-n0 * math.log1p(-theta) for theta in (theta_low, theta_high)]
        self._fall = [-n0 * math.log1p(-max(0.0, theta - hysteresis)) for theta in (theta_low, theta_high)]
        self._margin = margin
        self._entries: dict[int, tuple[float, int, int]] = {}  # key -> n, time, state
        self._ghosts: OrderedDict[int, tuple[float, int, int]] = OrderedDict()
        self._most_ghosts = int(ghosts * capacity)
        self._heaps: list[list[tuple[float, int, int]]] = [[], [], []]
        self._now = 0

    def access(self, key: int) -> bool:
        self._now += 1
        entry = self._entries.get(key)
        hit = entry is not None
        n, time, state = entry or self._ghosts.pop(key, (0.0, self._now, U))
        n = 1 + self._faded(n, time, state)
        while state < S and n >= self._rise[state]:
            state += 1
        while state > U and n < self._fall[state - 1]:
            state -= 1
        if not hit and len(self._entries) >= self.capacity and not self._evict(n):
            self._remember(key, (n, self._now, state))
        else:
            self._put(key, n, self._now, state)
        return hit

    def rescale(self, scale: float) -> None:
        """Go on with another half-life."""
        faded = {key: (self._faded(*entry), self._now, entry[2]) for key, entry in self._entries.items()}
        self._ghosts = OrderedDict((k, (self._faded(*e), self._now, e[2])) for k, e in self._ghosts.items())
        self.scale = scale
        self._heaps = [[], [], []]
        for key, entry in faded.items():
            self._put(key, *entry)

    def __len__(self) -> int:
        return len(self._entries)

    def _life(self, state: int) -> float:
        return self.scale * self.capacity * RATIOS[state]

    def _faded(self, n: float, time: int, state: int) -> float:
        return float(max(1e-30, n * 2 ** ((time - self._now) / self._life(state))))

    def _put(self, key: int, n: float, time: int, state: int) -> None:
        self._entries[key] = n, time, state
        heapq.heappush(self._heaps[state], (math.log2(max(n, 1e-30)) + time / self._life(state), time, key))

    def _evict(self, newcomer: float) -> bool:
        """Evict the least stable entry, if it is less so than the newcomer."""
        heads = []
        for state, heap in enumerate(self._heaps):
            # An entry that was used again stands further down a heap, too.
            while heap and ((e := self._entries.get(heap[0][2])) is None or e[1] != heap[0][1] or e[2] != state):
                heapq.heappop(heap)
            if heap:
                heads.append((heap[0][0] - self._now / self._life(state), state))
        log_n, state = min(heads)
        if math.log2(newcomer) < log_n + self._margin:
            return False
        _, _, key = heapq.heappop(self._heaps[state])
        self._remember(key, self._entries.pop(key))
        return True

    def _remember(self, key: int, entry: tuple[float, int, int]) -> None:
        self._ghosts[key] = entry
        while len(self._ghosts) > self._most_ghosts:
            self._ghosts.popitem(last=False)


class StabilityCache(Policy):
    """`FixedStabilityCache` whose half-life is the one that does best in small trials on a sample of the keys.

    Source of the trials: Waldspurger, Saemundsson, Ahmad and Park, Cache Modeling and Optimization using Miniature
    Simulations, 2017.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._cache = FixedStabilityCache(capacity)
        self._trials = [FixedStabilityCache(max(4, capacity // SAMPLE), scale) for scale in SCALES]
        self._hits = [0.0] * len(SCALES)
        self._seen = 0

    def access(self, key: int) -> bool:
        if key * 0x9E3779B97F4A7C15 % 2**64 < 2**64 // SAMPLE:
            for i, trial in enumerate(self._trials):
                self._hits[i] += trial.access(key)
        self._seen += 1
        if self._seen % self.capacity == 0:
            best = max(range(len(SCALES)), key=self._hits.__getitem__)
            # A change costs what the old half-life had ordered, so a little better is not enough.
            if self._hits[best] > 1.02 * self._hits[SCALES.index(self._cache.scale)]:
                self._cache.rescale(SCALES[best])
            self._hits = [0.9 * hits for hits in self._hits]
        return self._cache.access(key)

    def __len__(self) -> int:
        return len(self._cache)
