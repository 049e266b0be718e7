"""The table of links: open addressing in one array of records, and the loops over it.

A record is 24 bytes, so ten million links at the fullest load fit in 400 MB and one observation touches one or two
cache lines.
"""

from __future__ import annotations

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
CANDIDATE, U, I, S = 0, 1, 2, 3  # noqa: E741


def new_table(slots: int) -> np.ndarray:
    """An empty table of `slots` records, a power of two."""
    table = np.zeros(slots, RECORD)
    table["a"] = EMPTY
    return table


@compiled
def _slot(a, b, mask):
    """Where the search for a pair begins: a 64-bit mix of both ids (the finaliser of splitmix64)."""
    x = (np.uint64(np.uint32(a)) << np.uint64(32)) | np.uint64(np.uint32(b))
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return np.int64(x & np.uint64(mask))


@compiled
def _find(table, a, b, mask):
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
def observe(table, a, b, grow, evidence, row, col, used, limit, most):
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
def find_all(table, a, b, out):
    """The slot of each pair, or -1."""
    mask = len(table) - 1
    for k in range(len(a)):
        i = _find(table, a[k], b[k], mask)
        out[k] = i if i >= 0 else -1


@compiled
def rehash(old, new):
    """Move every live record into an empty table; the number moved."""
    mask = len(new) - 1
    moved = 0
    for k in range(len(old)):
        if old[k]["a"] >= 0:
            new[-1 - _find(new, old[k]["a"], old[k]["b"], mask)] = old[k]
            moved += 1
    return moved


@compiled
def drop_nodes(table, gone):
    """Remove every link of nodes marked in `gone`; the number removed."""
    dropped = 0
    for k in range(len(table)):
        if table[k]["a"] >= 0 and (gone[table[k]["a"]] or gone[table[k]["b"]]):
            table[k]["a"] = GONE
            dropped += 1
    return dropped


@compiled
def _x_log(observed, expected):
    return observed * np.log(observed / expected) if observed > 0 else 0.0


@compiled
def evidence(n, na, nb, total, prior):
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
def tick(table, begin, end, row, col, total, weights, limits, decays, moves):
    """One tick for the slots begin..end: stability, transitions, decay, pruning.

    weights  R, E, C, Φ, inertia, n0
    limits   link_npmi, g2, min_count, prior, theta_low, theta_high, hysteresis, dwell, prune
    decays   per tick: repetitions by state (4), evidence
    moves    (4, 5) counts of transitions from each state to each, the last column: removed
    """
    for k in range(begin, end):
        a = table[k]["a"]
        if a < 0:
            continue
        state = table[k]["state"]
        if state == CANDIDATE and table[k]["n"] < limits[2]:
            npmi, g2, c = 0.0, 0.0, 0.0  # not enough to become a link, whatever they are
        else:
            npmi, g2, c = evidence(np.float64(table[k]["n"]), row[a], col[table[k]["b"]], total, limits[3])
        significant = g2 >= limits[1] and npmi > 0
        e = npmi if significant else 0.0
        r = 1 - np.exp(-np.float64(table[k]["r"]) / weights[5])
        signal = weights[0] * r + weights[1] * e + weights[2] * c
        weight = weights[0] + weights[1] + weights[2]
        if table[k]["phi"] != NO_PHI:
            signal += weights[3] * table[k]["phi"] / 254
            weight += weights[3]
        s = np.float64(table[k]["s"])
        if state != CANDIDATE:
            s = weights[4] * s + (1 - weights[4]) * signal / weight
            table[k]["s"] = s
        dwell = min(np.int64(table[k]["dwell"]) + 1, 255)
        rested = dwell > limits[7]
        after = np.int64(state)
        if state == CANDIDATE:
            if significant and npmi > limits[0] and table[k]["n"] >= limits[2]:
                after = U
            elif table[k]["r"] < 0.5:
                after = 4
        elif state == U:
            if significant and s >= limits[4] and rested:
                after = I
            elif s < limits[8] and rested:
                after = 4
        elif state == I:
            if significant and s >= limits[5] and rested:
                after = S
            elif s < limits[4] - limits[6] and rested:
                after = U
        elif s < limits[5] - limits[6] and rested:
            after = I
        table[k]["r"] *= decays[min(after, 3)]
        table[k]["n"] *= decays[4]
        if after == state:
            table[k]["dwell"] = dwell
        else:
            moves[state, after] += 1
            table[k]["dwell"] = 0
            if after == 4:
                table[k]["a"] = GONE
            else:
                table[k]["state"] = after
