"""A level that jumps between regimes."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import FieldSpec, Sample
from helix_plugin_synthetic.series.series import Series, SeriesConfig


class RegimeShiftsConfig(SeriesConfig):
    """Options of RegimeShifts."""

    regimes: int = Field(3, ge=2, le=1000, description="number of different levels")
    dwell: float = Field(50.0, ge=1, allow_inf_nan=False, description="mean steps in a regime, geometric")
    separation: float = Field(3.0, ge=0, allow_inf_nan=False, description="between neighbouring levels")
    noise: float = Field(1.0, ge=0, allow_inf_nan=False, description="standard deviation")


class RegimeShifts(Series[RegimeShiftsConfig]):
    """x_t = separation * r_t + noise; r is a Markov chain that leaves with probability 1/dwell for any other regime.

    >>> from helix_core import create
    >>> sample = create("generator", "regime-shifts", length=8, dwell=2).sample(0, 0)
    >>> sample["regime"].tolist()
    [0, 0, 1, 2, 2, 2, 2, 0]
    """

    def schema(self) -> dict[str, FieldSpec]:
        return {**super().schema(), "regime": FieldSpec("int64", (self.config.length,), "r")}

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        c = self.config
        jumps = rng.random(c.length) < 1 / c.dwell
        steps = np.where(jumps, rng.integers(1, c.regimes, size=c.length), 0)
        steps[0] = rng.integers(c.regimes)
        regime = np.cumsum(steps) % c.regimes
        values = c.separation * regime + c.noise * rng.standard_normal(c.length)
        return {**self.observe(rng, values), "regime": regime.astype(np.int64)}
