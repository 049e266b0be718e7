"""Phase synchronisation of signals: what locks to what, whatever the amplitudes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import butter, hilbert, sosfiltfilt

from helix_core.errors import UsageError


def bandpass(signals: ArrayLike, low: float, high: float, rate: float) -> np.ndarray:
    """Signals (..., L) between two frequencies, without shifting phases (4th-order Butterworth, there and back)."""
    x = _signals(signals)
    if not 0 < low < high < rate / 2:
        raise UsageError(f"the band {low}..{high} must lie between 0 and half the rate, {rate / 2}")
    return np.asarray(sosfiltfilt(butter(4, [low, high], "bandpass", fs=rate, output="sos"), x))


def plv(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Phase-locking value of signals (..., L): |mean e^{i(φa-φb)}|, 1 for any constant lag, 0 for none.

    Source: Lachaux, Rodriguez, Martinerie and Varela, Measuring Phase Synchrony in Brain Signals, 1999.
    """
    x, y = _analytic(a, b)
    difference = np.exp(1j * (np.angle(x) - np.angle(y)))
    locking: np.ndarray = np.abs(difference.mean(-1))
    return locking


def wpli(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Weighted phase-lag index of signals (..., L): |mean Im S| / mean |Im S|, S = a conj(b).

    Signals that are one another's copies at lag zero (a shared source) give 0. Source: Vinck, Oostenveld, van
    Wingerden, Battaglia and Pennartz, An Improved Index of Phase-Synchronization, 2011.
    """
    x, y = _analytic(a, b)
    cross = x * np.conj(y)
    # Rounding gives equal signals an imaginary part of its own.
    lag = np.where(np.abs(cross.imag) > 1e-9 * np.abs(cross).max(), cross.imag, 0.0)
    size = np.abs(lag).mean(-1)
    index: np.ndarray = np.divide(np.abs(lag.mean(-1)), size, out=np.zeros_like(size), where=size > 0)
    return index


def plv_matrix(signals: ArrayLike) -> np.ndarray:
    """Phase-locking values between all rows of signals (N, L) -> (N, N)."""
    x = _signals(signals)
    phases = np.exp(1j * np.angle(hilbert(x - x.mean(-1, keepdims=True))))
    locking: np.ndarray = np.abs(phases @ phases.conj().T) / x.shape[-1]
    return locking


def _analytic(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = _signals(a), _signals(b)
    if x.shape[-1] != y.shape[-1]:
        raise UsageError(f"signals of equal length are needed, not {x.shape[-1]} and {y.shape[-1]}")
    x, y = (hilbert(s - s.mean(-1, keepdims=True)) for s in (x, y))
    return x, y


def _signals(signals: ArrayLike) -> np.ndarray:
    x = np.asarray(signals, np.float64)
    if x.ndim < 1 or x.shape[-1] < 8:
        raise UsageError(f"signals (..., L) of at least 8 samples are needed, not {x.shape}")
    if not np.isfinite(x).all():
        raise UsageError("a signal holds NaN or infinity")
    return x
