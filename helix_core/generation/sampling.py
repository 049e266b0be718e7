"""Choosing the next token from logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helix_core.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """How to sample: temperature 0 is greedy; top_k and top_p (nucleus, Holtzman et al., 2020) cut the tail."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"temperature must be at least 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be in (0, 1], not {self.top_p}")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """logits (V,) -> the float64 distribution (V,) that `pick` draws from."""
        logits = logits.astype(np.float64)
        if self.temperature == 0:
            greedy = np.zeros(len(logits))
            greedy[int(np.argmax(logits))] = 1.0
            return greedy
        logits = logits / self.temperature
        order = np.argsort(-logits, kind="stable")
        p = np.exp(logits[order] - logits[order[0]])
        p /= p.sum()
        if self.top_k is not None:
            p[self.top_k :] = 0
        if self.top_p is not None:
            # Keep the smallest head whose mass reaches top_p; the first token always stays.
            p[np.cumsum(p) - p >= self.top_p * p.sum()] = 0
        result: np.ndarray = np.empty_like(p)
        result[order] = p / p.sum()
        return result

    def pick(self, logits: np.ndarray, rng: np.random.Generator) -> int:
        """logits (V,) -> a token."""
        p = self.probabilities(logits)
        return int(np.searchsorted(np.cumsum(p), rng.random() * p.sum(), side="right").clip(max=len(p) - 1))
