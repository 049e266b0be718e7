"""What all series share: a length, and values that go missing."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig


class SeriesConfig(GeneratorConfig):
    """Options that every generator of series has."""

    length: int = Field(512, ge=2, le=2**24, description="L, number of steps")
    missing: float = Field(0.0, ge=0, lt=1, description="P(a value is missing), NaN")
    gaps: Literal["single", "blocks"] = Field("single", description="values go missing one by one, or in blocks")
    gap_length: int = Field(10, gt=0, le=2**24, description="mean length of a block, geometric")


ConfigT = TypeVar("ConfigT", bound=SeriesConfig)


class Series(Generator[ConfigT]):
    """A series `values` (L,) float32, with NaN where a value is missing (completely at random)."""

    def schema(self) -> dict[str, FieldSpec]:
        L = (self.config.length,)
        return {"values": FieldSpec("float32", L, "the series as observed", nan=self.config.missing > 0)}

    def observe(self, rng: np.random.Generator, values: np.ndarray) -> dict[str, Any]:
        """The field `values` of a series (L,), rounded to float32, some of it missing."""
        observed = values.astype(np.float32)
        c = self.config
        if c.missing and c.gaps == "single":
            observed[rng.random(c.length) < c.missing] = np.nan
        elif c.missing:
            # A two-state chain whose share of missing steps is c.missing and whose gaps last c.gap_length on average.
            end = 1 / c.gap_length
            begin = min(1.0, end * c.missing / (1 - c.missing))
            inside = rng.random() < c.missing
            for t, u in enumerate(rng.random(c.length).tolist()):
                if inside:
                    observed[t] = np.nan
                inside = u >= end if inside else u < begin
        return {"values": observed}
