"""Where step sizes start."""

from __future__ import annotations

import math

import numpy as np

from helix_core.kinds.params import Initializer


def step_size_bias(low: float, high: float, floor: float = 0.0) -> Initializer:
    """Biases whose softplus is log-uniform between `low` and `high`, but at least `floor` (Gu and Dao, 2023)."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        dt = np.exp(rng.uniform(math.log(low), math.log(high), shape)).clip(min=floor)
        bias: np.ndarray = dt + np.log(-np.expm1(-dt))
        return bias

    return draw
