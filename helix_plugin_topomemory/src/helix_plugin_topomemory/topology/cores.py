"""M2: stable cores, the clusters that persist when the density threshold sinks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gudhi.clustering.tomato import Tomato
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from helix_core.errors import UsageError


@dataclass(frozen=True)
class Cores:
    """labels (N,), 0..count-1; persistence: the finite ones, largest first; count: number of cores."""

    labels: np.ndarray
    persistence: np.ndarray
    count: int


def stable_cores(points: ArrayLike, *, neighbours: int = 15, count: int | None = None) -> Cores:
    """Cluster points (N, D) by the persistence of their density's peaks.

    Density is the logarithm of the distance to a measure over `neighbours` points. Without a `count`, the cut is the
    widest gap (as a ratio) among the persistences that stand out of the noise, which is measured where it arises:
    how far a point's density is from its neighbours'. One in twenty Gaussian clouds of 400 points is cut all the same.
    Source: Chazal, Guibas, Oudot and Skraba, Persistence-Based Clustering in Riemannian Manifolds, 2013 (ToMATo),
    as `gudhi.clustering.tomato` has it. Raises UsageError if there are too few points, or if one is not finite.
    """
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or len(array) <= neighbours:
        raise UsageError(f"cores need more than {neighbours} points (N, D), not {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError("points hold NaN or infinity")
    # Equal points would be infinitely dense; a billionth of the spread keeps them apart.
    spread = float(np.ptp(array)) or 1.0
    jittered = array + np.random.default_rng(0).normal(scale=1e-9 * spread, size=array.shape)
    tomato = Tomato(graph_type="knn", density_type="logDTM", k=neighbours, n_clusters=count)
    tomato.fit(jittered)
    diagram = np.asarray(tomato.diagram_).reshape(-1, 2)
    persistence = np.sort(diagram[:, 0] - diagram[:, 1])[::-1]
    if count is None:
        essential = len(tomato.max_weight_per_cc_)
        density = np.asarray(tomato.weights_)
        near = cKDTree(jittered).query(jittered, neighbours + 1)[1][:, 1:]
        noise = float(np.median(np.abs(density - np.median(density[near], axis=1))))
        tomato.n_clusters_ = essential + _standing_out(persistence, noise)
    return Cores(np.asarray(tomato.labels_, np.int64), persistence, int(tomato.n_clusters_))


def _standing_out(persistence: np.ndarray, noise: float) -> int:
    """How many persistences (sorted, largest first) lie before the widest gap, over the noise of the density.

    Without any structure the largest reach 3 to 5 times that noise, and 5 times their own median.
    """
    floor = 4.5 * noise
    if len(persistence) >= 5:
        floor = max(floor, 5 * float(np.median(persistence)))
    ratios = persistence / np.maximum(np.append(persistence[1:], noise), 1e-12)
    ratios[persistence <= floor] = 0
    return int(np.argmax(ratios)) + 1 if ratios.size and ratios.max() > 2 else 0
