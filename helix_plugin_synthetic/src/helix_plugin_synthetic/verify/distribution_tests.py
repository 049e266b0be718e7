"""Tests of distributions. Each returns a p-value that is uniform if the null hypothesis holds, and small if not.

Those that permute take the random generator that permutes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.spatial.distance import pdist, squareform

Array = np.ndarray


def ks(x: Array, y: Array | Callable[[Array], Array]) -> float:
    """Kolmogorov-Smirnov: x (n,) comes from the distribution of y (m,), or has the cumulative distribution y."""
    result = stats.ks_1samp(x, y) if callable(y) else stats.ks_2samp(x, y)
    return float(result.pvalue)


def anderson(x: Array, y: Array, rng: np.random.Generator, permutations: int = 999) -> float:
    """Anderson-Darling for two samples (Scholz and Stephens, 1987), by permutation: sees more in the tails than ks."""
    pooled = np.concatenate([x, y])
    n, N = len(x), len(pooled)
    member = np.zeros((permutations + 1, N), bool)
    member[0] = np.lexsort((rng.random(N), pooled)) < n  # equal values in random order
    for row in member[1:]:
        row[rng.permutation(N)[:n]] = True
    below = np.cumsum(member, axis=1)[:, :-1]
    i = np.arange(1, N)
    statistic = ((below * N - i * n) ** 2 / (i * (N - i))).sum(1)
    return _permutation_p(statistic)


def chi2(counts: Array, expected: Array, parameters: int = 0) -> float:
    """Pearson: counts (k,) are those expected (k,). Cells of fewer than 5 are taken together.

    parameters   how many were estimated from the same counts
    """
    counts, expected = np.asarray(counts, float).ravel(), np.asarray(expected, float).ravel()
    small = expected < 5
    if small.any():
        counts = np.r_[counts[~small], counts[small].sum()]
        expected = np.r_[expected[~small], expected[small].sum()]
        counts, expected = counts[expected > 0], expected[expected > 0]
    if len(counts) < 2:
        return 1.0
    return float(stats.chisquare(counts, expected * counts.sum() / expected.sum(), ddof=parameters).pvalue)


def adf(x: Array, lags: int = 0, trend: bool = False) -> float:
    """Augmented Dickey-Fuller: x (n,) has a unit root, is a random walk; small p: it is stationary."""
    from statsmodels.tsa.stattools import adfuller

    return float(adfuller(x, lags, "ct" if trend else "c", autolag=None, result_object=True).pvalue)


def mmd(x: Array, y: Array, rng: np.random.Generator, permutations: int = 499) -> float:
    """Maximum mean discrepancy (Gretton et al., 2012): x (n, d) and y (m, d) come from one distribution.

    Gaussian kernel of the median distance; p by permutation.
    """
    from threadpoolctl import threadpool_limits

    pooled = np.concatenate([x, y]).astype(float)
    n, N = len(x), len(pooled)
    distances = squareform(pdist(pooled, "sqeuclidean"))
    scale = np.median(distances[np.triu_indices(N, 1)])
    if scale == 0:
        return 1.0  # at least half of all pairs are equal: nothing tells samples apart
    K = np.exp(-distances / scale)
    np.fill_diagonal(K, 0.0)
    signs = np.full((N, permutations + 1), -1 / (N - n))
    signs[:n, 0] = 1 / n
    for k in range(1, permutations + 1):
        signs[rng.permutation(N)[:n], k] = 1 / n
    with threadpool_limits(1):
        statistic = np.einsum("ik,ik->k", signs, K @ signs)
    return _permutation_p(statistic)


def c2st(x: Array, y: Array, rng: np.random.Generator) -> float:
    """Classifier two-sample test (Lopez-Paz and Oquab, 2017): no classifier tells x (n, d) from y (m, d).

    A logistic regression on all products of two features learns from one half; p is the Mann-Whitney test of its
    scores on the other half.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler
    from threadpoolctl import threadpool_limits

    data = np.concatenate([x, y]).astype(float)
    label = np.r_[np.zeros(len(x), bool), np.ones(len(y), bool)]
    order = rng.permutation(len(data))
    learn, judge = order[: len(order) // 2], order[len(order) // 2 :]
    model = make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), LogisticRegression(C=0.1)
    )
    if len(set(label[learn])) < 2 or len(set(label[judge])) < 2:
        return 1.0
    with threadpool_limits(1):  # the problem is small: threads would only wait for each other
        scores = model.fit(data[learn], label[learn]).decision_function(data[judge])
    ours, theirs = scores[label[judge]], scores[~label[judge]]
    return float(stats.mannwhitneyu(ours, theirs, alternative="greater").pvalue)


def closest_record(
    train: Array, held_out: Array, synthetic: Array, rng: np.random.Generator, permutations: int = 999
) -> tuple[int, float]:
    """Privacy: does synthetic (k, d) lie closer to train (n, d) than to held_out (m, d), as copies would?

    Returns the number of synthetic records that are training records, and the p-value of how many have their closest
    record among the training ones, by permuting which records were held out; ties are broken at random.
    """
    from scipy.spatial import cKDTree

    records = np.concatenate([train, held_out])
    # Records in random order, so that among equal ones no side is preferred.
    order = rng.permutation(len(records))
    closest = order[cKDTree(records[order]).query(synthetic)[1]]
    copies = int((cKDTree(train).query(synthetic)[0] == 0).sum())
    chosen = np.bincount(closest, minlength=len(records))
    counts = np.empty(permutations + 1)
    counts[0] = chosen[: len(train)].sum()
    for k in range(1, permutations + 1):
        counts[k] = chosen[rng.permutation(len(records))[: len(train)]].sum()
    return copies, _permutation_p(counts + rng.random(len(counts)) / 2)


def _permutation_p(statistic: Array) -> float:
    """The share of permutations at least as extreme as the data, which stand first; exact (Phipson and Smyth, 2010)."""
    return float((1 + (statistic[1:] >= statistic[0] * (1 - 1e-12)).sum()) / len(statistic))
