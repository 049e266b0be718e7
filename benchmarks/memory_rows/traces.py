"""Request traces that behave as published ones do: popularity, scans, change, loops, recency."""

from __future__ import annotations

import numpy as np


def zipf(rng: np.random.Generator, length: int, keys: int, alpha: float = 0.9) -> np.ndarray:
    """Independent requests; the k-th most popular key has a share of k^-alpha."""
    p = np.arange(1, keys + 1) ** -alpha
    return rng.choice(rng.permutation(keys), size=length, p=p / p.sum())


def scan_mixed(rng: np.random.Generator, length: int, keys: int) -> np.ndarray:
    """Zipf requests, interrupted by long scans of keys that are asked for once: a database under backups."""
    out, fresh = zipf(rng, length, keys), keys
    for start in range(length // 10, length, length // 5):
        size = length // 12
        out[start : start + size] = np.arange(fresh, fresh + len(out[start : start + size]))
        fresh += size
    return out


def shifting(rng: np.random.Generator, length: int, keys: int) -> np.ndarray:
    """Zipf requests whose popular keys change altogether ten times: news, working sets of phases."""
    return np.concatenate([zipf(rng, length // 10, keys) for _ in range(10)])


def drifting(rng: np.random.Generator, length: int, keys: int) -> np.ndarray:
    """Popularity that moves on slowly: each request is Zipf around a place that wanders."""
    near = rng.zipf(1.3, size=length) % keys
    return (near + np.arange(length) // 20) % keys


def loop(rng: np.random.Generator, length: int, keys: int) -> np.ndarray:
    """Keys asked for in turn, round and round, some more than fit: LRU never hits."""
    return np.arange(length) % (keys // 12)


def recency(rng: np.random.Generator, length: int, keys: int) -> np.ndarray:
    """Every request repeats a recent one (geometric stack distance) or is new: made for LRU."""
    out = np.arange(length) + keys
    back = rng.geometric(1 / 600, size=length)
    for t in np.flatnonzero(rng.random(length) < 0.6):
        if back[t] <= t:
            out[t] = out[t - back[t]]
    return out


TRACES = {
    "zipf": zipf,
    "scan_mixed": scan_mixed,
    "shifting": shifting,
    "drifting": drifting,
    "loop": loop,
    "recency": recency,
}
