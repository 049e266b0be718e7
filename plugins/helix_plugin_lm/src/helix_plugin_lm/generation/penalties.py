"""Penalties on tokens that the text already has."""

from __future__ import annotations

import numpy as np


def repetition_penalty(logits: np.ndarray, counts: np.ndarray, penalty: float) -> np.ndarray:
    """Divide the logits (V,) of tokens with counts > 0 by `penalty` where positive, else multiply them by it.

    Source: Keskar et al., CTRL, 2019, with the sign rule of transformers, so that a penalty above 1 always lowers.
    """
    return np.where(counts > 0, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def frequency_penalty(logits: np.ndarray, counts: np.ndarray, penalty: float) -> np.ndarray:
    """Subtract `penalty` from a token's logit for every time that the text has it: logits, counts (V,)."""
    return logits - penalty * counts


def presence_penalty(logits: np.ndarray, counts: np.ndarray, penalty: float) -> np.ndarray:
    """Subtract `penalty` from the logits (V,) of tokens that the text has."""
    return np.where(counts > 0, logits - penalty, logits)
