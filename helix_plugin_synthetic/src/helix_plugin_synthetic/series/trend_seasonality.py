"""A trend, seasons and noise."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import FieldSpec, Sample
from helix_plugin_synthetic.series.series import Series, SeriesConfig


class TrendSeasonalityConfig(SeriesConfig):
    """Options of TrendSeasonality."""

    level: float = Field(0.0, allow_inf_nan=False)
    slope: float = Field(0.01, allow_inf_nan=False, description="per step")
    curvature: float = Field(0.0, allow_inf_nan=False, description="coefficient of t**2")
    periods: tuple[float, ...] = Field((24.0,), description="steps per season")
    amplitudes: tuple[float, ...] = Field((1.0,), description="one per period")
    noise: float = Field(0.3, ge=0, allow_inf_nan=False, description="standard deviation")

    @model_validator(mode="after")
    def _seasons(self) -> TrendSeasonalityConfig:
        if len(self.periods) != len(self.amplitudes):
            raise ValueError(f"{len(self.periods)} periods have {len(self.amplitudes)} amplitudes: give one each")
        for period in self.periods:
            if not 2 < period <= self.length:
                raise ValueError(
                    f"a period of {period} steps cannot be seen in {self.length} steps: 2 < period <= length"
                )
        return self


class TrendSeasonality(Series[TrendSeasonalityConfig]):
    """level + slope t + curvature t**2 + sum_k a_k sin(2 pi t / p_k + phase_k) + noise; phases are uniform.

    >>> from helix_core import create
    >>> sample = create("generator", "trend-seasonality", length=48, periods=(12,)).sample(0, 0)
    >>> sample["values"].shape
    (48,)
    """

    def schema(self) -> dict[str, FieldSpec]:
        L = (self.config.length,)
        return {
            **super().schema(),
            "trend": FieldSpec("float32", L, "without seasons and noise"),
            "season": FieldSpec("float32", L, "the sum of the seasons"),
        }

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        c = self.config
        t = np.arange(c.length, dtype=np.float64)
        trend = c.level + c.slope * t + c.curvature * t**2
        phases = rng.uniform(0, 2 * np.pi, len(c.periods))
        waves = zip(c.periods, c.amplitudes, phases, strict=True)
        season = sum((a * np.sin(2 * np.pi * t / p + phase) for p, a, phase in waves), np.zeros(c.length))
        values = trend + season + c.noise * rng.standard_normal(c.length)
        return {
            **self.observe(rng, values),
            "trend": trend.astype(np.float32),
            "season": season.astype(np.float32),
        }
