"""M0: motifs, the pieces of a sequence or a signal that come back more often than chance has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import poisson

from helix_core.errors import UsageError

EXACT = 4096
"""Windows up to which a matrix profile is one product of matrices; beyond, stumpy, which compiles for a while."""


@dataclass(frozen=True)
class SymbolMotif:
    """A run of symbols, how often it occurs, how often chance would have it, and at which places."""

    symbols: tuple[int, ...]
    count: int
    expected: float
    places: np.ndarray


def symbol_motifs(
    codes: ArrayLike, *, max_length: int = 8, order: int = 0, min_count: int = 5, alpha: float = 1e-3
) -> list[SymbolMotif]:
    """Runs of 2..max_length symbols in codes (L,) that a Markov chain of `order` does not explain, most frequent first.

    A run counts as a motif if both of its one-symbol-shorter parts are continued by its last (first) symbol more often
    than the chain has it (Poisson, Bonferroni over all runs tested), and if no longer motif contains it at half of its
    places or more. Raises UsageError if the codes are not integers.
    """
    sequence = np.asarray(codes)
    if sequence.ndim != 1 or (sequence.size and not np.issubdtype(sequence.dtype, np.integer)):
        raise UsageError(f"codes must be integers (L,), not {sequence.dtype} {sequence.shape}")
    if len(sequence) < 2:
        return []
    _, first = np.unique(sequence, return_inverse=True)
    ids, counts = {1: first}, {1: np.bincount(first)}
    alive = np.ones(len(counts[1]), bool)
    found: list[SymbolMotif] = []
    for n in range(2, min(max_length, len(sequence)) + 1):
        pair = np.stack([ids[n - 1][:-1], first[n - 1 :]], 1)
        keys, at, ids[n], counts[n] = np.unique(
            pair, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        ids[n] = ids[n].reshape(-1)
        prefix, suffix = keys[:, 0], ids[n - 1][at + 1]
        reachable = alive[prefix] | alive[suffix]
        ok = reachable & (counts[n] >= min_count)
        expected = np.zeros(len(keys))
        if n > order + 1:
            right = counts[n - 1][prefix] * _continuing(ids, counts, at + n - 1 - order, order, last=True)
            left = counts[n - 1][suffix] * _continuing(ids, counts, at, order, last=False)
            expected = np.maximum(right, left)
            ok &= poisson.sf(counts[n] - 1, expected) < alpha / max(1, int(np.count_nonzero(reachable)))
            for k in np.flatnonzero(ok):
                places = np.flatnonzero(ids[n] == k)
                run = tuple(int(s) for s in sequence[at[k] : at[k] + n])
                found.append(SymbolMotif(run, int(counts[n][k]), float(expected[k]), places))
        alive = ok
        if not ok.any():
            break
    return sorted(_maximal(found), key=lambda motif: (-motif.count, motif.symbols))


def _continuing(
    ids: dict[int, np.ndarray], counts: dict[int, np.ndarray], at: np.ndarray, order: int, *, last: bool
) -> np.ndarray:
    """P(last of a run of order+1 symbols | the ones before), or of its first given the ones behind, at places `at`."""
    whole = counts[order + 1][ids[order + 1][at]]
    if order == 0:
        return np.asarray(whole / len(ids[1]))
    return np.asarray(whole / counts[order][ids[order][at if last else at + 1]])


def _maximal(motifs: list[SymbolMotif]) -> list[SymbolMotif]:
    kept = []
    for motif in motifs:
        text = motif.symbols
        covered = any(
            len(other.symbols) > len(text)
            and 2 * other.count >= motif.count
            and any(other.symbols[i : i + len(text)] == text for i in range(len(other.symbols) - len(text) + 1))
            for other in motifs
        )
        if not covered:
            kept.append(motif)
    return kept


@dataclass(frozen=True)
class SignalMotif:
    """A shape, the places where it occurs, and the correlation of its two closest occurrences."""

    shape: np.ndarray
    places: np.ndarray
    correlation: float


def signal_motifs(signal: ArrayLike, length: int, *, surrogates: int = 3, seed: int = 0) -> list[SignalMotif]:
    """Shapes of `length` samples that recur in a signal (L,), whatever their offset and scale, closest first.

    Two windows are one motif if they are closer than any two windows of `surrogates` signals with the same spectrum
    and random phases (Theiler and others, 1992). Closeness is the z-normalised distance of the matrix profile (Yeh and
    others, Matrix Profile I, 2016). Raises UsageError if the signal is not finite or shorter than four windows.
    """
    x = np.asarray(signal, np.float64)
    if x.ndim != 1 or length < 4 or len(x) < 4 * length:
        raise UsageError(f"a signal (L,) of at least 4 x {length} samples is needed, not {x.shape}")
    if not np.isfinite(x).all():
        raise UsageError("the signal holds NaN or infinity")
    rng = np.random.default_rng(seed)
    closest = [float(matrix_profile(_same_spectrum(x, rng), length)[0].max()) for _ in range(surrogates)]
    least = max(closest, default=0.9)
    profile, _ = matrix_profile(x, length)
    windows = _normalised(x, length)
    free = np.ones(len(windows), bool)
    motifs = []
    for start in np.argsort(-profile, kind="stable"):
        if profile[start] <= least:
            break
        if not free[start]:
            continue
        similar = windows @ windows[start]
        similar[~free] = -1
        places = []
        while (best := int(np.argmax(similar))) >= 0 and similar[best] > least:
            places.append(best)
            similar[max(0, best - length + 1) : best + length] = -1
        if len(places) > 1:
            motifs.append(SignalMotif(x[start : start + length].copy(), np.sort(places), float(profile[start])))
            for place in places:
                free[max(0, place - length + 1) : place + length] = False
    return motifs


def matrix_profile(x: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The correlation of each window (N,) with its nearest, a quarter window away at least, and the place of that."""
    count, zone = len(x) - length + 1, -(-length // 4)
    if count > EXACT:
        import stumpy

        found = stumpy.stump(x, length)
        distance = found[:, 0].astype(np.float64)
        return 1 - distance**2 / (2 * length), found[:, 1].astype(np.int64)
    windows = _normalised(x, length)
    profile, nearest = np.empty(count), np.empty(count, np.int64)
    for begin in range(0, count, 512):
        block = windows[begin : begin + 512] @ windows.T
        for row in range(len(block)):
            block[row, max(0, begin + row - zone) : begin + row + zone + 1] = -1
        nearest[begin : begin + 512] = np.argmax(block, axis=1)
        profile[begin : begin + 512] = block.max(axis=1)
    return profile, nearest


def _normalised(x: np.ndarray, length: int) -> np.ndarray:
    """Every window minus its mean, scaled to length 1; a constant one is 0."""
    windows = np.lib.stride_tricks.sliding_window_view(x, length)
    centred = windows - windows.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    varies = norms > 1e-12 * max(1.0, float(np.abs(x).max()))
    scaled: np.ndarray = np.divide(centred, norms, out=np.zeros_like(centred), where=varies)
    return scaled


def _same_spectrum(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(x)
    phases = rng.uniform(0, 2 * np.pi, len(spectrum))
    phases[0] = 0
    return np.fft.irfft(np.abs(spectrum) * np.exp(1j * phases), len(x))
