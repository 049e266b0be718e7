"""P-values are uniform under the null hypothesis, and small when a fault is planted.

The default tier has fixed seeds; the slow one takes fresh ones, more of them.
"""

import numpy as np
import pytest
from scipy import stats

from helix_plugin_synthetic.verify import distribution_tests as tests

UNIFORM = np.full(8, 100.0)
SKEWED = np.array([0.125] * 6 + [0.08, 0.17])


def counts(rng, p):
    return rng.multinomial(800, p)


def walk(rng, n=250):
    return np.cumsum(rng.normal(size=n))


def ar(rng, phi, n=250):
    x = np.zeros(n)
    for t, e in enumerate(rng.normal(size=n)):
        x[t] = phi * x[t - 1] + e
    return x


def correlated(rng, n, rho=0.7):
    x = rng.normal(size=(n, 3))
    x[:, 1] = rho * x[:, 0] + np.sqrt(1 - rho**2) * x[:, 1]
    return x


NULL = {
    "ks, one sample": lambda r: tests.ks(r.normal(size=80), stats.norm.cdf),
    "ks, two samples": lambda r: tests.ks(r.normal(size=150), r.normal(size=171)),
    "anderson": lambda r: tests.anderson(r.normal(size=60), r.normal(size=50), r, 399),
    "chi2": lambda r: tests.chi2(counts(r, UNIFORM / 800), UNIFORM),
    "adf": lambda r: tests.adf(walk(r)),
    "adf with a trend": lambda r: tests.adf(walk(r), trend=True),
    "mmd": lambda r: tests.mmd(r.normal(size=(40, 3)), r.normal(size=(40, 3)), r, 199),
    "c2st": lambda r: tests.c2st(r.normal(size=(100, 3)), r.normal(size=(100, 3)), r),
    "closest record": lambda r: tests.closest_record(
        r.normal(size=(150, 3)), r.normal(size=(150, 3)), r.normal(size=(100, 3)), r, 399
    )[1],
}

FAULTS = {
    "ks: another mean": lambda r: tests.ks(r.normal(0.5, size=100), stats.norm.cdf),
    "ks: another spread": lambda r: tests.ks(r.normal(size=200), 2 * r.normal(size=200)),
    "anderson: heavier tails": lambda r: tests.anderson(r.normal(size=250), r.standard_t(1, size=250), r, 399),
    "anderson: another mean": lambda r: tests.anderson(r.normal(size=80), r.normal(0.6, size=80), r, 399),
    "chi2: other shares": lambda r: tests.chi2(counts(r, SKEWED), UNIFORM),
    "adf: stationary": lambda r: tests.adf(ar(r, 0.8)),
    "mmd: another mean": lambda r: tests.mmd(r.normal(size=(60, 3)), r.normal(0.5, size=(60, 3)), r, 199),
    "mmd: dependence": lambda r: tests.mmd(r.normal(size=(150, 3)), correlated(r, 150, 0.9), r, 199),
    "c2st: another mean": lambda r: tests.c2st(r.normal(size=(200, 3)), r.normal(0.4, size=(200, 3)), r),
    "c2st: dependence": lambda r: tests.c2st(r.normal(size=(300, 3)), correlated(r, 300), r),
    "closest record: memorised": lambda r: _memorised(r),
}


def _memorised(rng):
    train, held_out = rng.normal(size=(2, 300, 3))
    # A third of the synthetic records are training records, slightly blurred.
    synthetic = np.concatenate([train[:100] + 0.02 * rng.normal(size=(100, 3)), rng.normal(size=(200, 3))])
    return tests.closest_record(train, held_out, synthetic, rng, 399)[1]


def p_values(test, seeds):
    return np.array([test(np.random.default_rng(seed)) for seed in seeds])


@pytest.mark.parametrize("name", NULL)
def test_p_values_are_uniform_under_the_null(name):
    found = p_values(NULL[name], range(1000, 1150))
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert stats.binomtest(int((found < 0.05).sum()), 150, 0.05, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name):
    assert (p_values(FAULTS[name], range(60)) < 0.05).mean() >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", NULL)
def test_p_values_are_uniform_with_fresh_seeds(name, rng):
    found = p_values(NULL[name], rng.integers(2**32, size=1000))
    assert stats.kstest(found, "uniform").pvalue > 1e-4
    assert stats.binomtest(int((found < 0.05).sum()), 1000, 0.05, alternative="greater").pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_power_with_fresh_seeds(name, rng):
    assert (p_values(FAULTS[name], rng.integers(2**32, size=300)) < 0.05).mean() >= 0.9


def test_anderson_statistic_orders_as_scipys(rng):
    """The same test as scipy's k-sample one: p-values of the same permutation null agree."""
    x, y = rng.normal(size=40), rng.normal(0.5, size=45)
    ours = tests.anderson(x, y, rng, 4999)
    method = stats.PermutationMethod(n_resamples=4999, rng=rng)
    theirs = stats.anderson_ksamp([x, y], variant="right", method=method).pvalue
    assert ours == pytest.approx(theirs, abs=0.03)


def test_exact_copies_are_counted(rng):
    train, held_out = rng.normal(size=(2, 50, 2))
    copies, p = tests.closest_record(train, held_out, train[:20], rng)
    assert copies == 20
    assert p < 0.01


def test_identical_samples_are_not_told_apart():
    same = np.ones((30, 2))
    rng = np.random.default_rng(0)
    assert tests.mmd(same, same, rng) == 1.0
    assert tests.anderson(same[:, 0], same[:, 1], rng) > 0.01
    copies, p = tests.closest_record(same, same, same, rng)
    assert copies == 30
    assert p > 0.01
