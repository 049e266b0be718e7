"""Rules that cut the tail of a distribution. All take and return probabilities (V,), sorted from likely to unlikely.

What is cut becomes 0; the rest keeps its value and may sum to less than 1. The likeliest token always stays.
"""

from __future__ import annotations

import numpy as np


def top_k(p: np.ndarray, k: int) -> np.ndarray:
    """Keep the k likeliest tokens (Fan et al., 2018)."""
    return np.where(np.arange(len(p)) < k, p, 0.0)


def top_p(p: np.ndarray, share: float) -> np.ndarray:
    """Keep the smallest head that holds `share` of what is left (nucleus; Holtzman et al., 2020)."""
    before = np.cumsum(p) - p
    before[0] = 0.0
    return np.where((before < share * p.sum()) | (np.arange(len(p)) == 0), p, 0.0)


def min_p(p: np.ndarray, share: float) -> np.ndarray:
    """Keep tokens that are at least `share` times as likely as the likeliest (Nguyen et al., 2024)."""
    return np.where(p >= share * p[0], p, 0.0)
