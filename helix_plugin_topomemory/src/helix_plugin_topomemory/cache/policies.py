"""The field's eviction policies, to measure against: LRU, LFU, ARC, W-TinyLFU."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from helix_core.errors import UsageError


class Policy(ABC):
    """A cache of `capacity` keys that only keeps books: what would be a hit."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise UsageError(f"a cache needs a capacity of at least 1, not {capacity}")
        self.capacity = capacity

    @abstractmethod
    def access(self, key: int) -> bool:
        """Ask for a key and take it in if it is not there; whether it was."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of keys held."""

    def hit_rate(self, trace: Iterable[int], skip: int = 0) -> float:
        """The share of hits in a trace after its first `skip` requests."""
        hits = [self.access(key) for key in trace][skip:]
        return sum(hits) / max(1, len(hits))


class LRU(Policy):
    """Evicts the key that was asked for longest ago."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._keys: OrderedDict[int, None] = OrderedDict()

    def access(self, key: int) -> bool:
        if key in self._keys:
            self._keys.move_to_end(key)
            return True
        if len(self._keys) >= self.capacity:
            self._keys.popitem(last=False)
        self._keys[key] = None
        return False

    def __len__(self) -> int:
        return len(self._keys)


class LFU(Policy):
    """Evicts the key that was asked for least often since it came in; among equals the longest ago."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._counts: dict[int, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, int]] = []
        self._now = 0

    def access(self, key: int) -> bool:
        self._now += 1
        hit = key in self._counts
        if not hit and len(self._counts) >= self.capacity:
            while True:
                count, time, victim = heapq.heappop(self._heap)
                if self._counts.get(victim) == (count, time):
                    del self._counts[victim]
                    break
        entry = self._counts.get(key, (0, 0))[0] + 1, self._now
        self._counts[key] = entry
        heapq.heappush(self._heap, (*entry, key))
        return hit

    def __len__(self) -> int:
        return len(self._counts)


class ARC(Policy):
    """Adaptive replacement cache: a list of keys seen once, one of keys seen again, and a balance that learns.

    Source: Megiddo and Modha, ARC: A Self-Tuning, Low Overhead Replacement Cache, 2003, figure 4.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._t1, self._t2, self._b1, self._b2 = (OrderedDict[int, None]() for _ in range(4))
        self._p = 0.0

    def access(self, key: int) -> bool:
        t1, t2, b1, b2, c = self._t1, self._t2, self._b1, self._b2, self.capacity
        if key in t1 or key in t2:
            (t1 if key in t1 else t2).pop(key)
            t2[key] = None
            return True
        if key in b1:
            self._p = min(c, self._p + max(1, len(b2) / len(b1)))
            self._replace(key)
            del b1[key]
            t2[key] = None
        elif key in b2:
            self._p = max(0, self._p - max(1, len(b1) / len(b2)))
            self._replace(key)
            del b2[key]
            t2[key] = None
        else:
            if len(t1) + len(b1) == c:
                if len(t1) < c:
                    b1.popitem(last=False)
                    self._replace(key)
                else:
                    t1.popitem(last=False)
            elif (total := len(t1) + len(t2) + len(b1) + len(b2)) >= c:
                if total == 2 * c:
                    b2.popitem(last=False)
                self._replace(key)
            t1[key] = None
        return False

    def _replace(self, key: int) -> None:
        t1, t2 = self._t1, self._t2
        if t1 and (len(t1) > self._p or (key in self._b2 and len(t1) == self._p)):
            self._b1[t1.popitem(last=False)[0]] = None
        elif t2:
            self._b2[t2.popitem(last=False)[0]] = None
        else:
            self._b1[t1.popitem(last=False)[0]] = None

    def __len__(self) -> int:
        return len(self._t1) + len(self._t2)


class TinyLFU(Policy):
    """W-TinyLFU: a window of 1 %, a segmented LRU behind it, and admission by aged frequency.

    Frequencies are exact counts, halved every ten capacities, where the paper has a sketch of them.
    Source: Einziger, Friedman and Manes, TinyLFU: A Highly Efficient Cache Admission Policy, 2017.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._window, self._probation, self._protected = (OrderedDict[int, None]() for _ in range(3))
        self._window_size = max(1, capacity // 100)
        self._protected_size = int(0.8 * (capacity - self._window_size))
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._seen = 0

    def access(self, key: int) -> bool:
        self._count(key)
        if key in self._window:
            self._window.move_to_end(key)
            return True
        if key in self._protected:
            self._protected.move_to_end(key)
            return True
        if key in self._probation:
            del self._probation[key]
            self._protected[key] = None
            if len(self._protected) > self._protected_size:
                self._probation[self._protected.popitem(last=False)[0]] = None
            return True
        self._window[key] = None
        if len(self._window) > self._window_size:
            self._admit(self._window.popitem(last=False)[0])
        return False

    def _admit(self, candidate: int) -> None:
        room = self.capacity - self._window_size
        if len(self._probation) + len(self._protected) < room:
            self._probation[candidate] = None
        elif room:
            segment = self._probation or self._protected
            victim = next(iter(segment))
            if self._counts[candidate] > self._counts[victim]:
                del segment[victim]
                self._probation[candidate] = None

    def _count(self, key: int) -> None:
        self._counts[key] = min(15, self._counts[key] + 1)
        self._seen += 1
        if self._seen >= 10 * self.capacity:
            self._seen //= 2
            self._counts = defaultdict(int, {k: n // 2 for k, n in self._counts.items() if n > 1})

    def __len__(self) -> int:
        return len(self._window) + len(self._probation) + len(self._protected)
