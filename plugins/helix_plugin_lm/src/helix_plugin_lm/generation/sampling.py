"""Choosing the next token from logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from helix_core.errors import GenerationError, UsageError
from helix_plugin_lm.generation import penalties, truncation


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. Rules apply in this order, each to what the one before left:

    repetition_penalty  1 is none; divides positive logits of tokens in the text, multiplies negative ones
    frequency_penalty   0 is none; subtracted for every time that a token is in the text
    presence_penalty    0 is none; subtracted from tokens in the text
    temperature         divides the logits; 0 takes the likeliest token (the first of equals), and what follows is idle
    top_k               keeps the k likeliest
    top_p               keeps the smallest head of this share of the probability
    min_p               keeps what is at least this share as likely as the likeliest

    "The text" is the prompt and its continuation. Raises UsageError for values without meaning.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0 <= self.temperature < math.inf, "at least 0")
        _check("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "at least 1")
        _check("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "in (0, 1]")
        _check("min_p", self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "in [0, 1]")
        _check("repetition_penalty", self.repetition_penalty, 0 < self.repetition_penalty < math.inf, "above 0")
        for name in ("frequency_penalty", "presence_penalty"):
            _check(name, getattr(self, name), math.isfinite(getattr(self, name)), "a finite number")

    @property
    def penalised(self) -> bool:
        """Whether the tokens of the text matter."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

    def scores(self, logits: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """logits (V,), how often the text has each token (V,) -> float64 logits after penalties.

        Raises GenerationError for logits that are NaN or infinite, or that leave no token; -inf forbids a token.
        """
        scores = logits.astype(np.float64)
        best = scores.max()
        if not np.isfinite(best):  # NaN wins over every number in max
            bad = "-inf everywhere" if best == -np.inf else "NaN" if np.isnan(best) else "infinite"
            raise GenerationError(
                f"the model's logits are {bad}, so there is no next token to choose",
                hint="its weights or its state are not finite: did training diverge?",
            )
        if counts is not None and self.penalised:
            scores = penalties.repetition_penalty(scores, counts, self.repetition_penalty)
            scores = penalties.frequency_penalty(scores, counts, self.frequency_penalty)
            scores = penalties.presence_penalty(scores, counts, self.presence_penalty)
        return scores

    def probabilities(self, logits: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """logits, counts (V,) -> the float64 distribution (V,) that `pick` draws from; raises what `scores` does."""
        scores = self.scores(logits, counts)
        result: np.ndarray = np.zeros(len(scores))
        if self.temperature == 0:
            result[int(np.argmax(scores))] = 1.0
            return result
        order = np.argsort(-scores, kind="stable")
        # The difference first: a tiny temperature would make infinities of the logits themselves.
        with np.errstate(over="ignore"):
            p = np.exp((scores[order] - scores[order[0]]) / self.temperature)
        p /= p.sum()
        if self.top_k is not None:
            p = truncation.top_k(p, self.top_k)
        if self.top_p is not None:
            p = truncation.top_p(p, self.top_p)
        if self.min_p is not None:
            p = truncation.min_p(p, self.min_p)
        result[order] = p / p.sum()
        return result

    def pick(self, logits: np.ndarray, rng: np.random.Generator, counts: np.ndarray | None = None) -> int:
        """logits, counts (V,) -> a token; raises what `scores` does. Draws one number from rng unless greedy."""
        if self.temperature == 0:
            return int(np.argmax(self.scores(logits, counts)))
        p = self.probabilities(logits, counts)
        below = np.cumsum(p)
        # The last token with any probability: rounding may leave the sum just below what was drawn.
        last = int(np.flatnonzero(p)[-1])
        return min(int(np.searchsorted(below, rng.random() * below[-1], side="right")), last)


def _check(name: str, value: object, fine: bool, wanted: str) -> None:
    if not fine:
        raise UsageError(f"{name} must be {wanted}, not {value}")
