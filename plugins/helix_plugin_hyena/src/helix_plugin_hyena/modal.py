"""A long filter as a sum of a few damped waves: h_t = 2 Re Σ_n c_n a_n^t."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS = 256
"""Rows of the Hankel matrix at most: the work is that of its singular values, O(ROWS² K) for each filter."""


@dataclass(frozen=True)
class Modes:
    """One filter's modes, and how well they fit it.

    log_a (N, 2)  the logarithms of the poles as real and imaginary part; unused ones are zeros
    c (N, 2)      the residues, likewise
    error         |h - modes| / |h| over the taps
    """

    log_a: np.ndarray
    c: np.ndarray
    error: float

    def taps(self, length: int) -> np.ndarray:
        """The first `length` values (length,)."""
        log_a, c = (part[:, 0] + 1j * part[:, 1] for part in (self.log_a, self.c))
        return 2 * (np.exp(np.arange(length)[:, None] * log_a) @ c).real


def fit(h: np.ndarray, modes: int) -> Modes:
    """The taps h (K,), K > 1, by `modes` modes, in float64: conjugate pairs of poles take one, real poles too.

    Kung's method: the singular vectors of the taps' Hankel matrix shift by one step as the poles do, so that the poles
    are eigenvalues; the residues follow by least squares over all taps. Of the orders that fit into `modes`, the one
    with the least error is taken. No pole lies outside the unit circle.
    Sources: Kung, A New Identification and Model Reduction Algorithm via Singular Value Decomposition, 1978; for Hyena:
    Massaroli et al., Laughing Hyena Distillery: Extracting Compact Recurrences from Convolutions, 2023.
    """
    h = np.asarray(h, dtype=np.float64)
    size = float(np.linalg.norm(h))
    best = Modes(np.zeros((modes, 2)), np.zeros((modes, 2)), 0.0 if size == 0 else 1.0)
    if size == 0:
        return best
    rows = min(ROWS, max(2, h.shape[0] // 2))
    hankel = np.lib.stride_tricks.sliding_window_view(h, h.shape[0] - rows + 1)
    left, sizes, _ = np.linalg.svd(hankel, full_matrices=False)
    rank = int(np.sum(sizes > sizes[0] * 1e-13))
    # Real poles take a whole mode each, so that the highest order that fits is not known beforehand.
    for order in range(min(2 * modes, rank, rows - 1), 0, -1):
        vectors = left[:, :order]
        poles = np.linalg.eigvals(np.linalg.lstsq(vectors[:-1], vectors[1:], rcond=None)[0])
        poles = poles[poles.imag >= 0]
        if poles.size > modes:
            continue
        found = _residues(h, poles, modes, size)
        if found.error < best.error:
            best = found
        if order <= modes:
            break
    return best


def _residues(h: np.ndarray, poles: np.ndarray, modes: int, size: float) -> Modes:
    magnitude = np.minimum(np.maximum(np.abs(poles), 1e-30), 1.0)
    log_a = np.log(magnitude) + 1j * np.angle(poles)
    waves = np.exp(np.arange(h.shape[0])[:, None] * log_a)
    scale = np.linalg.norm(waves, axis=0)
    columns = np.concatenate([waves.real, -waves.imag], axis=1) * (2 / np.concatenate([scale, scale]))
    solved = np.linalg.lstsq(columns, h, rcond=1e-13)[0]
    error = float(np.linalg.norm(columns @ solved - h)) / size
    c = (solved[: poles.size] + 1j * solved[poles.size :]) / scale
    padding = ((0, modes - poles.size), (0, 0))
    log_a, c = (np.pad(np.stack([a.real, a.imag], axis=-1), padding) for a in (log_a, c))
    return Modes(log_a, c, error)
