"""M1: cycles, of motifs that lead to one another and of signals that come round."""

from __future__ import annotations

from dataclasses import dataclass

import gudhi
import networkx
import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import poisson

from helix_core.errors import UsageError


@dataclass(frozen=True)
class MotifCycle:
    """Motifs in their order round the cycle, and the smallest transition probability on the way."""

    nodes: tuple[int, ...]
    strength: float


def motif_cycles(sequence: ArrayLike, *, longest: int = 8, least: float = 0.2, alpha: float = 1e-3) -> list[MotifCycle]:
    """Cycles of 2..longest motifs in a sequence (L,) of motif numbers, strongest first.

    An edge is a transition that is more frequent than independence has it (Poisson, Bonferroni) and has a probability
    of at least `least`; cycles are the simple ones of that graph.
    """
    codes = np.asarray(sequence)
    if codes.ndim != 1 or (codes.size and not np.issubdtype(codes.dtype, np.integer)):
        raise UsageError(f"motifs must be integers (L,), not {codes.dtype} {codes.shape}")
    if len(codes) < 3:
        return []
    pairs, counts = np.unique(np.stack([codes[:-1], codes[1:]], 1), axis=0, return_counts=True)
    names, totals = np.unique(codes[:-1], return_counts=True)
    into = dict(zip(*(x.tolist() for x in np.unique(codes[1:], return_counts=True)), strict=True))
    out = dict(zip(names.tolist(), totals.tolist(), strict=True))
    graph = networkx.DiGraph()
    for (a, b), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        surprising = poisson.sf(count - 1, out[a] * into[b] / (len(codes) - 1)) < alpha / len(pairs)
        if a != b and surprising and count / out[a] >= least:
            graph.add_edge(a, b, p=count / out[a])
    found = []
    for nodes in networkx.simple_cycles(graph, length_bound=longest):
        turn = nodes.index(min(nodes))
        nodes = nodes[turn:] + nodes[:turn]
        steps = zip(nodes, nodes[1:] + nodes[:1], strict=True)
        found.append(MotifCycle(tuple(nodes), min(graph.edges[step]["p"] for step in steps)))
    return sorted(found, key=lambda cycle: (-cycle.strength, cycle.nodes))


def period(signal: ArrayLike) -> int | None:
    """The period of a signal (L,) in samples: the highest peak of its autocorrelation behind the first zero.

    None if there is no such peak, or if white noise of this length would have one as high (p about 0.01).
    """
    x = _finite(signal)
    x = x - np.polyval(np.polyfit(np.arange(len(x)), x, 1), np.arange(len(x)))
    if not x.any():
        return None
    spectrum = np.fft.rfft(x, 2 * len(x))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(x) // 2]
    # Each lag has its own number of products.
    correlation = correlation / correlation[0] * len(x) / (len(x) - np.arange(len(correlation)))
    below = np.flatnonzero(correlation < 0)
    if not len(below):
        return None
    start = int(below[0])
    inner = correlation[start:]
    peaks = start + 1 + np.flatnonzero((inner[1:-1] > inner[:-2]) & (inner[1:-1] >= inner[2:]))
    floor = 4 / np.sqrt(len(x))
    peaks = peaks[correlation[peaks] > floor]
    if not len(peaks):
        return None
    # Multiples of a period peak as high; the first that comes near the highest is the period itself.
    high = peaks[correlation[peaks] >= 0.9 * correlation[peaks].max()]
    return int(high[0])


def periodicity(signal: ArrayLike, period: int, *, dimension: int = 15, points: int = 120) -> float:
    """How round a signal (L,) goes at a period, 0..1: the largest H₁ persistence of its sliding window, over √3.

    Windows of `dimension`+1 samples span period * M/(M+1); they are centred and scaled to length 1, so that a perfect
    cycle is a circle. Source: Perea, Deckard, Haase and Harer, SW1PerS, 2015.
    Raises UsageError if the signal is shorter than two periods.
    """
    x = _finite(signal)
    if period < 2 or len(x) < 2 * period:
        raise UsageError(f"{len(x)} samples are less than two periods of {period}")
    step = period / (dimension + 1)
    last = len(x) - 1 - dimension * step
    starts = np.linspace(0, last, points)
    at = starts[:, None] + step * np.arange(dimension + 1)
    cloud = np.interp(at, np.arange(len(x)), x)
    cloud = cloud - cloud.mean(1, keepdims=True)
    norms = np.linalg.norm(cloud, axis=1, keepdims=True)
    cloud = np.divide(cloud, norms, out=np.zeros_like(cloud), where=norms > 1e-12 * max(1.0, float(np.abs(x).max())))
    tree = gudhi.RipsComplex(points=cloud, max_edge_length=2.0).create_simplex_tree(max_dimension=1)
    tree.collapse_edges()
    tree.expansion(2)
    tree.compute_persistence(homology_coeff_field=11)
    loops = np.asarray(tree.persistence_intervals_in_dimension(1)).reshape(-1, 2)
    if not len(loops):
        return 0.0
    lives = np.minimum(loops[:, 1], 2.0) - loops[:, 0]
    return float(min(1.0, lives.max() / np.sqrt(3)))


def _finite(signal: ArrayLike) -> np.ndarray:
    x = np.asarray(signal, np.float64)
    if x.ndim != 1 or len(x) < 8:
        raise UsageError(f"a signal (L,) of at least 8 samples is needed, not {x.shape}")
    if not np.isfinite(x).all():
        raise UsageError("the signal holds NaN or infinity")
    return x
