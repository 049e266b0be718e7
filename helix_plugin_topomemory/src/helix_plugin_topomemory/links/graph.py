"""A graph of U/I/S links: observe pairs, advance time, ask for neighbours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from helix_core.errors import UsageError
from helix_plugin_topomemory.checked import checked
from helix_plugin_topomemory.links import table as t
from helix_plugin_topomemory.links.config import LinkConfig, State

LOAD = 0.7
SMALLEST = 1 << 12
PARALLEL = 1 << 18
_MOST = {"a": 0, "b": 0, "n": 2**53, "r": 2**53, "s": 1.001, "state": 3, "dwell": 255, "phi": 255}
"""The greatest values of a record's fields; of nodes as many as there are."""
_NAMES = ("candidate", "U", "I", "S", "removed")


@dataclass(frozen=True)
class Links:
    """Links side by side: arrays of equal length, in order of source and target.

    a, b       nodes, int32
    stability  float32 in 0..1
    state      uint8, a `State`
    count      float32, decayed observations
    """

    a: np.ndarray
    b: np.ndarray
    stability: np.ndarray
    state: np.ndarray
    count: np.ndarray

    def __len__(self) -> int:
        return len(self.a)

    def pairs(self) -> set[tuple[int, int]]:
        """The (a, b) of every link."""
        return set(zip(self.a.tolist(), self.b.tolist(), strict=True))


class LinkGraph:
    """Directed links between integer nodes, each with a stability that its own evidence drives.

        S_t = w_S S_{t-1} + (1 - w_S) (w_R R + w_E E + w_C C + w_Φ Φ) / Σ w

    R = 1 - exp(-n/n0) from decayed repetitions, of which no more than 3 n0 count; E = max(0, NPMI), 0 unless G² is
    significant; C = P(b|a); Φ = the phase locking of both nodes, left out (of Σ w too) where none was measured. All lie
    in 0..1, so S contracts to their weighted mean. A pair is a candidate until NPMI and G² make it a U-link; it rises
    U -> I -> S at theta_low and theta_high while significant, falls at `hysteresis` below, and stays `dwell` ticks.
    Source of NPMI: Bouma, Normalized (Pointwise) Mutual Information, 2009; of G²: Dunning, Accurate Methods for the
    Statistics of Surprise and Coincidence, 1993.
    """

    def __init__(self, config: LinkConfig | None = None) -> None:
        self.config = config or LinkConfig()
        self._table = t.new_table(SMALLEST)
        self._used = 0
        self._live = 0
        self._row = np.zeros(0)
        self._col = np.zeros(0)
        self._total = 0.0
        self._adjacency: tuple[np.ndarray, np.ndarray] | None = None
        self.ticks = 0
        self.observed = 0

    # Writing.

    def observe(self, a: ArrayLike, b: ArrayLike, *, grow: bool = True) -> None:
        """Count pairs a[i] -> b[i] of nodes, integers from 0 (N,). Raises UsageError on anything else.

        Without `grow`, pairs that are not held count for their nodes only.
        """
        self._count(*_nodes(a, b), grow=grow, evidence=True)

    def observe_sequence(self, codes: ArrayLike, window: int = 1) -> None:
        """Count every pair of codes (L,) at distances 1..window."""
        codes = np.asarray(codes)
        for distance in range(1, min(window, len(codes) - 1) + 1):
            self.observe(codes[:-distance], codes[distance:])

    def rehearse(self, a: ArrayLike, b: ArrayLike) -> None:
        """Repeat pairs (replay): R grows, NPMI and P(b|a) do not. Pairs that were never observed are passed over."""
        a, b = _nodes(a, b)
        known = self._slots(a, b) >= 0
        self._count(a[known], b[known], grow=False, evidence=False)

    def set_phase(self, a: ArrayLike, b: ArrayLike, phi: ArrayLike) -> None:
        """Set the phase locking (0..1) of pairs; those that were never observed are passed over."""
        a, b = _nodes(a, b)
        value = np.asarray(phi, dtype=np.float64)
        if value.shape != a.shape or not ((value >= 0) & (value <= 1)).all():
            raise UsageError("phase locking must be one number in 0..1 for each pair")
        slots = self._slots(a, b)
        self._table["phi"][slots[slots >= 0]] = np.rint(254 * value[slots >= 0]).astype(np.uint8)

    def advance(self) -> dict[str, int]:
        """One tick: stability, transitions, caps, decay. The number of transitions by name ("U>I", "S>I", ...)."""
        c = self.config
        weights = t.Weights(
            repetition=float(c.weight_r),
            evidence=float(c.weight_e),
            confidence=float(c.weight_c),
            phase=float(c.weight_phi),
            inertia=float(c.inertia),
            n0=float(c.n0),
        )
        limits = t.Limits(
            npmi=float(c.link_npmi),
            g2=float(c.g2),
            min_count=float(c.min_count),
            prior=float(c.prior),
            theta_low=float(c.theta_low),
            theta_high=float(c.theta_high),
            hysteresis=float(c.hysteresis),
            dwell=float(c.dwell),
            prune=float(c.prune),
        )
        fading = 0.5 ** (1 / c.half_life_evidence)
        shared = self._row, self._col, self._total, weights, limits, np.array(c.decay), fading
        moves = _in_parts(len(self._table), lambda begin, end, out: t.tick(self._table, begin, end, *shared, out))
        self._live -= int(moves[:, 4].sum())
        self._row *= fading
        self._col *= fading
        self._total *= fading
        self.ticks += 1
        self._adjacency = None
        report = {
            f"{_NAMES[i]}>{_NAMES[j]}": int(moves[i, j]) for i in range(4) for j in range(5) if i != j and moves[i, j]
        }
        if capped := self._cap():
            report["capped"] = capped
        return report

    def forget_nodes(self, nodes: ArrayLike) -> int:
        """Remove all links of nodes, and their counts; the number of pairs removed."""
        gone = np.zeros(len(self._row), bool)
        ids = np.asarray(nodes, dtype=np.int64)
        gone[ids[(ids >= 0) & (ids < len(gone))]] = True
        dropped = int(t.drop_nodes(self._table, gone))
        self._live -= dropped
        self._row[gone] = self._col[gone] = 0
        self._total = float(self._row.sum())
        self._adjacency = None
        return dropped

    # Reading.

    def links(self, least: State = State.U) -> Links:
        """All links of at least a state."""
        return self._take(np.flatnonzero((self._table["a"] >= 0) & (self._table["state"] >= least)))

    def find(self, a: ArrayLike, b: ArrayLike, *, counts: bool = False) -> tuple[np.ndarray, ...]:
        """Stability (N,) and state (N,) of pairs, and their counts on demand; 0 and CANDIDATE where there is none."""
        slots = self._slots(*_nodes(a, b))
        known = slots >= 0
        stability = np.where(known, self._table["s"][slots], np.float32(0))
        state = np.where(known, self._table["state"][slots], np.uint8(0))
        if not counts:
            return stability, state
        return stability, state, np.where(known, self._table["n"][slots], np.float32(0))

    def neighbours(self, node: int, least: State = State.U) -> Links:
        """The links out of a node, strongest first."""
        if self._adjacency is None:
            slots = np.flatnonzero((self._table["a"] >= 0) & (self._table["state"] >= State.U))
            slots = slots[np.lexsort((-self._table["s"][slots], self._table["a"][slots]))]
            self._adjacency = slots, self._table["a"][slots]
        slots, sources = self._adjacency
        mine = slots[np.searchsorted(sources, node) : np.searchsorted(sources, node, side="right")]
        return self._take(mine[self._table["state"][mine] >= least], ordered=False)

    def node_stability(self, nodes: np.ndarray) -> np.ndarray:
        """The stability of the strongest link, in or out, of each of nodes (N,); 0 where there is none (N,)."""
        best = np.zeros(len(self._row) + 1, np.float32)  # the last for nodes that were never seen
        links = self.links()
        np.maximum.at(best, links.a, links.stability)
        np.maximum.at(best, links.b, links.stability)
        found: np.ndarray = best[np.minimum(nodes, len(self._row))]
        return found

    def sources(self, nodes: np.ndarray) -> np.ndarray:
        """How often each of nodes (N,) was the source of a pair, held or not, decayed (N,)."""
        known = nodes < len(self._row)
        return np.where(known, self._row[np.where(known, nodes, 0)], 0.0) if len(self._row) else np.zeros(len(nodes))

    def __len__(self) -> int:
        """Pairs held, candidates included."""
        return self._live

    @property
    def nbytes(self) -> int:
        """Memory of the table and the counts of nodes."""
        return self._table.nbytes + self._row.nbytes + self._col.nbytes

    def stats(self) -> dict[str, Any]:
        """Pairs per state, ticks, observations, bytes."""
        states = self._table["state"][self._table["a"] >= 0]
        counts = np.bincount(states, minlength=4)
        return {
            **{name: int(counts[i]) for i, name in enumerate(_NAMES[:4])},
            "ticks": self.ticks,
            "observations": self.observed,
            "bytes": self.nbytes,
        }

    # On disk.

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, as arrays to save."""
        live = np.sort(self._table[self._table["a"] >= 0], order=("a", "b"))
        fields = {name: np.ascontiguousarray(live[name]) for name in t.RECORD.names or () if name != "pad"}
        totals = np.array([self._total, self.ticks, self.observed], dtype=np.float64)
        return {**fields, "row": self._row, "col": self._col, "totals": totals}

    @classmethod
    def from_arrays(cls, config: LinkConfig, arrays: Mapping[str, np.ndarray]) -> LinkGraph:
        """The graph that `arrays` came from. Raises ValueError if they are not such arrays."""
        graph = cls(config)
        count, nodes = (len(arrays[name]) if name in arrays and arrays[name].ndim else 0 for name in ("a", "row"))
        live = np.zeros(count, t.RECORD)
        for name, most in _MOST.items():
            above = nodes - 1 if name in "ab" else most
            live[name] = checked(arrays, name, t.RECORD[name], shape=(count,), least=0, most=above)
        for name, size in (("row", nodes), ("col", nodes), ("totals", 3)):
            checked(arrays, name, np.float64, shape=(size,), least=0, most=2**53)
        if (np.diff((live["a"].astype(np.int64) << 32) + live["b"]) <= 0).any():
            raise ValueError("its pairs do not rise, or one is there twice")
        seen = live[live["n"] > 0]
        # Half: counts of pairs are held less precisely than those of nodes.
        if (arrays["row"][seen["a"]] < seen["n"] / 2).any() or (arrays["col"][seen["b"]] < seen["n"] / 2).any():
            raise ValueError("its pairs were seen more often than their nodes")
        graph._table = t.new_table(_slots_for(len(live)))
        graph._used = graph._live = int(t.rehash(live, graph._table))
        graph._row, graph._col = arrays["row"].copy(), arrays["col"].copy()
        graph._total = float(arrays["totals"][0])
        graph.ticks, graph.observed = int(arrays["totals"][1]), int(arrays["totals"][2])
        return graph

    # Inside.

    def _slots(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        slots = np.empty(len(a), np.int64)
        t.find_all(self._table, a, b, slots)
        return slots

    def _take(self, slots: np.ndarray, ordered: bool = True) -> Links:
        rows = self._table[slots]
        if ordered:
            rows = rows[np.lexsort((rows["b"], rows["a"]))]
        return Links(*(np.ascontiguousarray(rows[name]) for name in ("a", "b", "s", "state", "n")))

    def _count(self, a: np.ndarray, b: np.ndarray, *, grow: bool, evidence: bool) -> None:
        if not len(a):
            return
        nodes = int(max(a.max(), b.max())) + 1
        if nodes > len(self._row):
            room = max(nodes, len(self._row) + len(self._row) // 2)
            self._row, self._col = (np.concatenate([x, np.zeros(room - len(x))]) for x in (self._row, self._col))
        done = 0
        while done < len(a):
            limit = min(int(LOAD * len(self._table)), self._used - self._live + self.config.max_links)
            rest = self._table, a[done:], b[done:], grow, evidence, self._row, self._col
            step, self._used, added = t.observe(*rest, self._used, limit, 3 * self.config.n0)
            done += step
            self._live += added
            if done < len(a):
                self._make_room()
        if evidence:
            self._total += len(a)
            self.observed += len(a)
            self._adjacency = None

    def _make_room(self) -> None:
        """Drop what is dead; if the graph is full the weakest tenth too; then a table that is at most half full."""
        if self._live >= self.config.max_links:
            alive = np.flatnonzero(self._table["a"] >= 0)
            # Links before candidates, then by stability, then by how often they were seen.
            strength = self._table["state"][alive] + self._table["s"][alive] + 1e-3 * np.tanh(self._table["r"][alive])
            drop = max(1, len(alive) // 10)
            self._table["a"][alive[np.argpartition(strength, drop - 1)[:drop]]] = t.GONE
            self._live -= drop
        table = t.new_table(_slots_for(self._live + 1))
        self._used = int(t.rehash(self._table, table))
        self._table = table
        self._adjacency = None

    def _cap(self) -> int:
        """Take the weakest links beyond a node's cap one state down; the number of links moved."""
        c, moved = self.config, 0
        for state, cap in ((State.S, c.cap_s), (State.I, c.cap_i), (State.U, c.cap_u)):
            slots = np.flatnonzero((self._table["state"] == state) & (self._table["a"] >= 0))
            sources = self._table["a"][slots]
            crowded = np.bincount(sources, minlength=1) > cap
            if not crowded.any():
                continue
            slots = slots[crowded[sources]]
            rows = self._table[slots]
            order = np.lexsort((rows["b"], -rows["s"], rows["a"]))
            sources = rows["a"][order]
            first = np.flatnonzero(np.r_[True, sources[1:] != sources[:-1]])
            rank = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
            weakest = slots[order[rank >= cap]]
            if state == State.U:
                self._table["a"][weakest] = t.GONE
                self._live -= len(weakest)
            else:
                self._table["state"][weakest] = state - 1
                self._table["dwell"][weakest] = 0
            moved += len(weakest)
        return moved


def _nodes(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    pair = []
    for name, given in (("a", a), ("b", b)):
        array = np.atleast_1d(np.asarray(given))
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise UsageError(f"nodes {name} must be integers (N,), not {array.dtype} {array.shape}")
        if array.size and (array.min() < 0 or array.max() >= 2**31 - 1):
            raise UsageError(f"nodes {name} must be in 0..2^31-2, not {array.min()}..{array.max()}")
        pair.append(np.ascontiguousarray(array, dtype=np.int32))
    if len(pair[0]) != len(pair[1]):
        raise UsageError(f"pairs need as many sources as targets, not {len(pair[0])} and {len(pair[1])}")
    return pair[0], pair[1]


def _slots_for(live: int) -> int:
    """The smallest power of two that `live` links and a few more fill to no more than LOAD."""
    slots = SMALLEST
    while live > 0.9 * LOAD * slots:
        slots *= 2
    return slots


def _in_parts(size: int, run: Any) -> np.ndarray:
    """Run a loop over slots on every core (each slot stands alone), and add up what its parts counted."""
    parts = min(os.cpu_count() or 1, 8) if size >= PARALLEL else 1
    bounds = np.linspace(0, size, parts + 1).astype(np.int64)
    counts = np.zeros((parts, 4, 5), np.int64)
    with ThreadPoolExecutor(parts) as pool:
        for job in [pool.submit(run, bounds[i], bounds[i + 1], counts[i]) for i in range(parts)]:
            job.result()
    total: np.ndarray = counts.sum(0)
    return total
