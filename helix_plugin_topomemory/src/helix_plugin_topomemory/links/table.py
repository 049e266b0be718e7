"""The table of links: open addressing in one array of records, and the loops over it.

A record is 24 bytes, so ten million links at the fullest load fit in 400 MB and one observation touches one or two
cache lines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from helix_plugin_topomemory._jit import compiled

RECORD = np.dtype(
    [
        ("a", np.int32),  # source, or EMPTY or GONE
        ("b", np.int32),  # target
        ("n", np.float32),  # evidence: decayed observations
        ("r", np.float32),  # decayed repetitions, replays included
        ("s", np.float32),  # stability
        ("state", np.uint8),
        ("dwell", np.uint8),  # ticks in this state, up to 255
        ("phi", np.uint8),  # phase locking in 1/254, or NO_PHI
        ("pad", np.uint8),
    ],
    align=True,
)
EMPTY, GONE = -1, -2
NO_PHI = 255
CANDIDATE, U, I, S, REMOVED = 0, 1, 2, 3, 4  # noqa: E741


class Weights(NamedTuple):
    """How much each part counts in a link's stability.

    repetition, evidence, confidence, phase   of the new signal: R, E, C and Φ
    inertia                                   of the old stability
    n0                                        repetitions after which R is 1 - 1/e
    """

    repetition: float
    evidence: float
    confidence: float
    phase: float
    inertia: float
    n0: float


class Limits(NamedTuple):
    """What a link must reach to rise, and what it falls below to sink; see `LinkConfig`."""

    npmi: float
    g2: float
    min_count: float
    prior: float
    theta_low: float
    theta_high: float
    hysteresis: float
    dwell: float
    prune: float


def new_table(slots: int) -> np.ndarray:
    """An empty table of `slots` records, a power of two."""
    table = np.zeros(slots, RECORD)
    table["a"] = EMPTY
    return table


@compiled
def _slot(a: int, b: int, mask: int) -> Any:
    """Where the search for a pair begins: a 64-bit mix of both ids (the finaliser of splitmix64)."""
    x = (np.uint64(np.uint32(a)) << np.uint64(32)) | np.uint64(np.uint32(b))
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return np.int64(x & np.uint64(mask))


@compiled
def _find(table: np.ndarray, a: int, b: int, mask: int) -> Any:
    """The slot of a pair, or -1 - (the slot to put it in)."""
    i = _slot(a, b, mask)
    free = np.int64(-1)
    while True:
        here = table[i]["a"]
        if here == a and table[i]["b"] == b:
            return i
        if here == EMPTY:
            return -1 - (free if free >= 0 else i)
        if here == GONE and free < 0:
            free = i
        i = (i + 1) & mask


@compiled
def observe(
    table: np.ndarray, a: np.ndarray, b: np.ndarray, grow: bool, evidence: bool,
    row: np.ndarray, col: np.ndarray, used: int, limit: int, most: float,
) -> tuple[int, int, int]:  # fmt: skip
    """Count pairs until the table is as full as allowed: (pairs done, slots in use, pairs added).

    Repetitions stop counting at `most`, so that even the most frequent pair can be forgotten.
    """
    mask = len(table) - 1
    added = 0
    for k in range(len(a)):
        i = _find(table, a[k], b[k], mask)
        if i < 0 and not grow:
            if evidence:
                row[a[k]] += 1
                col[b[k]] += 1
            continue
        if i < 0:
            if used >= limit:
                return k, used, added
            i = -1 - i
            used += table[i]["a"] == EMPTY
            added += 1
            table[i]["a"] = a[k]
            table[i]["b"] = b[k]
            table[i]["n"] = 0
            table[i]["r"] = 0
            table[i]["s"] = 0
            table[i]["state"] = CANDIDATE
            table[i]["dwell"] = 0
            table[i]["phi"] = NO_PHI
        table[i]["r"] = min(table[i]["r"] + np.float32(1), np.float32(most))
        if evidence:
            table[i]["n"] += np.float32(1)
            row[a[k]] += 1
            col[b[k]] += 1
    return len(a), used, added


@compiled
def find_all(table: np.ndarray, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """The slot of each pair, or -1."""
    mask = len(table) - 1
    for k in range(len(a)):
        i = _find(table, a[k], b[k], mask)
        out[k] = i if i >= 0 else -1


@compiled
def rehash(old: np.ndarray, new: np.ndarray) -> int:
    """Move every live record into an empty table; the number moved."""
    mask = len(new) - 1
    moved = 0
    for k in range(len(old)):
        if old[k]["a"] >= 0:
            new[-1 - _find(new, old[k]["a"], old[k]["b"], mask)] = old[k]
            moved += 1
    return moved


@compiled
def drop_nodes(table: np.ndarray, gone: np.ndarray) -> int:
    """Remove every link of nodes marked in `gone`; the number removed."""
    dropped = 0
    for k in range(len(table)):
        if table[k]["a"] >= 0 and (gone[table[k]["a"]] or gone[table[k]["b"]]):
            table[k]["a"] = GONE
            dropped += 1
    return dropped


@compiled
def _x_log(observed: float, expected: float) -> Any:
    return observed * np.log(observed / expected) if observed > 0 and expected > 0 else 0.0


@compiled
def evidence(n: float, na: float, nb: float, total: float, prior: float) -> tuple[float, float, float]:
    """NPMI, G² and P(b|a) of a pair from its count, its nodes' counts and the total."""
    if n <= 0 or total <= 0:
        return 0.0, 0.0, 0.0
    n = min(n, na, nb)
    expected = na * nb / total
    p = (n + prior * expected / total) / (total + prior)
    npmi = np.log(p * total * total / (na * nb)) / -np.log(p) if p < 1 else 1.0
    g2 = 2 * (
        _x_log(n, expected)
        + _x_log(na - n, na * (total - nb) / total)
        + _x_log(nb - n, nb * (total - na) / total)
        + _x_log(total - na - nb + n, (total - na) * (total - nb) / total)
    )
    return npmi, g2, n / na


@compiled
def _new_stability(stability: float, r: float, e: float, c: float, phi: int, weights: Weights) -> float:
    """The old stability and what is seen now: repetition, evidence, confidence, and phase locking where it is known."""
    signal = weights.repetition * r + weights.evidence * e + weights.confidence * c
    total = weights.repetition + weights.evidence + weights.confidence
    if phi != NO_PHI:
        signal += weights.phase * phi / 254
        total += weights.phase
    return weights.inertia * stability + (1 - weights.inertia) * signal / total


@compiled
def _next_state(
    state: int, significant: bool, npmi: float, count: float, repetitions: float, s: float, rested: bool, limits: Limits
) -> int:
    """The state after a tick, or REMOVED."""
    if state == CANDIDATE:
        if significant and npmi > limits.npmi and count >= limits.min_count:
            return U
        return REMOVED if repetitions < 0.5 else CANDIDATE
    if not rested:
        return state
    if state == U:
        if significant and s >= limits.theta_low:
            return I
        return REMOVED if s < limits.prune else U
    if state == I:
        if significant and s >= limits.theta_high:
            return S
        return U if s < limits.theta_low - limits.hysteresis else I
    return I if s < limits.theta_high - limits.hysteresis else S


@compiled
def tick(
    table: np.ndarray, begin: int, end: int, row: np.ndarray, col: np.ndarray, total: float,
    weights: Weights, limits: Limits, decays: np.ndarray, fading: float, moves: np.ndarray,
) -> None:  # fmt: skip
    """One tick for the slots begin..end: stability, transitions, decay, pruning.

    decays (4,)   what is left of repetitions, by state
    fading        what is left of evidence
    moves (4, 5)  counts of transitions from each state to each, and to REMOVED
    """
    for k in range(begin, end):
        a = table[k]["a"]
        if a < 0:
            continue
        state: Any = np.int64(table[k]["state"])
        count = np.float64(table[k]["n"])
        if state == CANDIDATE and count < limits.min_count:
            npmi, g2, confidence = 0.0, 0.0, 0.0  # not enough to become a link, whatever they are
        else:
            npmi, g2, confidence = evidence(count, row[a], col[table[k]["b"]], total, limits.prior)
        significant = g2 >= limits.g2 and npmi > 0
        s: Any = np.float64(table[k]["s"])
        if state != CANDIDATE:
            r = 1 - np.exp(-np.float64(table[k]["r"]) / weights.n0)
            s = _new_stability(s, r, npmi if significant else 0.0, confidence, table[k]["phi"], weights)
            table[k]["s"] = s
        dwell: Any = min(np.int64(table[k]["dwell"]) + 1, 255)
        repetitions, rested = np.float64(table[k]["r"]), dwell > limits.dwell
        after = _next_state(state, significant, npmi, count, repetitions, s, rested, limits)
        table[k]["r"] *= decays[min(after, S)]
        table[k]["n"] *= fading
        if after == state:
            table[k]["dwell"] = dwell
            continue
        moves[state, after] += 1
        table[k]["dwell"] = 0
        if after == REMOVED:
            table[k]["a"] = GONE
        else:
            table[k]["state"] = after
