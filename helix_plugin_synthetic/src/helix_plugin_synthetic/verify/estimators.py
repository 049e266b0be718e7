"""Estimators: from samples back to the parameters that made them, each with its standard error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from helix_plugin_synthetic.verify.check import Check

Array = np.ndarray
Z99 = float(stats.norm.ppf(0.995))


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error."""

    value: float
    error: float

    def check(self, name: str, truth: float, detail: str = "") -> Check:
        """The estimate beside the truth: interval of 99 %, and p of their difference."""
        p = 2 * stats.norm.sf(abs(self.value - truth) / self.error) if self.error > 0 else float(self.value == truth)
        half = Z99 * self.error
        return Check(
            name,
            value=float(self.value),
            low=float(self.value - half),
            high=float(self.value + half),
            expected=float(truth),
            p_value=float(p),
            detail=detail,
        )


def pooled(estimates: list[Estimate]) -> Estimate:
    """The precision-weighted mean of independent estimates of one parameter."""
    weights = np.array([1 / e.error**2 for e in estimates])
    values = np.array([e.value for e in estimates])
    return Estimate(float(np.sum(weights * values) / weights.sum()), float(1 / np.sqrt(weights.sum())))


def slope(values: Array, periods: tuple[float, ...] = (), degree: int = 1) -> Estimate:
    """The linear coefficient of a series (L,) in t, beside seasons of known periods; NaN are left out. OLS."""
    t = np.arange(len(values), dtype=float)
    columns = [t**k for k in range(degree + 1)]
    columns += [f(2 * np.pi * t / p) for p in periods for f in (np.sin, np.cos)]
    seen = np.isfinite(values)
    X, y = np.stack(columns, 1)[seen], values[seen].astype(float)
    scale = np.abs(X).max(0)
    beta, *_ = np.linalg.lstsq(X / scale, y, rcond=None)
    rest = y - X / scale @ beta
    cov = np.linalg.inv((X / scale).T @ (X / scale)) * (rest @ rest) / (len(y) - X.shape[1])
    return Estimate(float(beta[1] / scale[1]), float(np.sqrt(cov[1, 1]) / scale[1]))


def period(values: Array) -> Estimate:
    """The period of the strongest season of a series (L,) with a linear trend.

    That is where the periodogram has its peak, refined by least squares in the frequency.
    """
    from scipy.optimize import curve_fit

    n = len(values)
    t = np.arange(n) - (n - 1) / 2
    y = values.astype(float) - np.polyval(np.polyfit(t, values, 1), t)
    power = np.abs(np.fft.rfft(y, 8 * n)) ** 2
    power[:8] = 0  # below one cycle
    start = np.argmax(power) / (8 * n)

    def wave(t: Array, f: float, a: float, b: float, c: float, d: float) -> Array:
        return a * np.sin(2 * np.pi * f * t) + b * np.cos(2 * np.pi * f * t) + c + d * t

    at = np.exp(2j * np.pi * start * t)
    first = (start, 2 * np.mean(y * at.imag), 2 * np.mean(y * at.real), 0.0, 0.0)
    found, cov = curve_fit(wave, t, y, p0=first)
    f, error = float(found[0]), float(np.sqrt(cov[0, 0]))
    return Estimate(1 / f, error / f**2)


def spectral_exponent(values: Array) -> Estimate:
    """alpha of a 1/f^alpha series (L,), from the regression of the log periodogram on log f.

    The regression is over all frequencies between 0 and Nyquist; the ordinates have standard deviation pi / sqrt(6).

    Source: Geweke and Porter-Hudak, The Estimation and Application of Long Memory Time Series Models, 1983.
    """
    n = len(values)
    power = np.abs(np.fft.rfft(values))[1 : (n + 1) // 2] ** 2
    x = np.log(np.arange(1, len(power) + 1))
    x -= x.mean()
    return Estimate(float(-np.sum(x * np.log(power)) / np.sum(x**2)), float(np.pi / np.sqrt(6 * np.sum(x**2))))


def arma(values: Array, p: int, d: int, q: int) -> list[Estimate]:
    """phi_1 .. phi_p, theta_1 .. theta_q of an ARIMA(p, d, q) series (L,), by maximum likelihood.

    Its bias of order 1/L, an error's size for phi near 1, is taken away by the halves' estimates (Quenouille, 1949).
    """
    half = len(values) // 2
    whole, *halves = (_arma_fit(part, p, d, q) for part in (values, values[:half], values[-half:]))
    return [
        Estimate(2 * found.value - (first.value + second.value) / 2, found.error)
        for found, first, second in zip(whole, *halves, strict=True)
    ]


def _arma_fit(values: Array, p: int, d: int, q: int) -> list[Estimate]:
    from statsmodels.tsa.arima.model import ARIMA
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the matrices are small: threads would only wait for each other
        fitted = ARIMA(values.astype(float), order=(p, d, q), trend="n").fit()
    return [Estimate(float(v), float(e)) for v, e in zip(fitted.params[:-1], fitted.bse[:-1], strict=True)]


def zipf_exponent(tokens: Array, vocab_size: int, shift: float = 0.0) -> Estimate:
    """s of p(r) ~ 1 / (r + q)^s from tokens = r - 1, by maximum likelihood."""
    from scipy.optimize import minimize_scalar

    log_ranks = np.log(np.arange(1, vocab_size + 1) + shift)
    mean = float(np.mean(log_ranks[tokens]))

    def nats(s: float) -> float:
        return s * mean + float(np.log(np.sum(np.exp(-s * log_ranks))))

    s = float(minimize_scalar(nats, bounds=(-5, 25), method="bounded", options={"xatol": 1e-8}).x)
    p = np.exp(-s * log_ranks)
    p /= p.sum()
    variance = float(np.sum(p * log_ranks**2) - np.sum(p * log_ranks) ** 2)
    return Estimate(s, 1 / np.sqrt(len(tokens) * variance))


def share(successes: int, trials: int, truth: float, name: str) -> Check:
    """A probability from counts: exact binomial test and Wilson interval."""
    result = stats.binomtest(int(successes), int(trials), truth)
    interval = result.proportion_ci(0.99, method="wilson")
    return Check(
        name,
        value=successes / trials,
        low=float(interval.low),
        high=float(interval.high),
        expected=truth,
        p_value=float(result.pvalue),
    )


def transition_counts(rows: Array, vocab_size: int, order: int = 1) -> Array:
    """How often each token follows each context, over sequences (N, L): (V ** order, V)."""
    width = rows.shape[1] - order
    contexts = sum(rows[:, i : i + width] * vocab_size ** (order - 1 - i) for i in range(order))
    counts = np.zeros((vocab_size**order, vocab_size))
    np.add.at(counts, (contexts, rows[:, order:]), 1)
    return counts


def box_dimension(image: Array, base: int = 2, levels: int = 4) -> float:
    """The box-counting dimension of the lit pixels (S, S), from boxes of 1, base, base**2 .. pixels."""
    sides = [base**k for k in range(levels)]
    counts = []
    for side in sides:
        cut = len(image) // side * side
        boxes = image[:cut, :cut].astype(bool).reshape(cut // side, side, cut // side, side)
        counts.append(max(int(boxes.any((1, 3)).sum()), 1))
    return float(-np.polyfit(np.log(sides), np.log(counts), 1)[0])
