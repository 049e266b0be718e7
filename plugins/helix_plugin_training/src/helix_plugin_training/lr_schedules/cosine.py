"""Cosine decay."""

import math

from pydantic import Field

from helix_core.kinds.lr_schedule import LRSchedule, LRScheduleConfig


class CosineConfig(LRScheduleConfig):
    """Options of the cosine schedule."""

    final: float = Field(0.1, ge=0, le=1, description="factor at the end")


class Cosine(LRSchedule[CosineConfig]):
    """Half a cosine from the peak to `final`, after any warm-up.

    Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017 (without restarts).

    >>> from helix_core import create
    >>> schedule = create("lr_schedule", "cosine", warmup=0)
    >>> [round(schedule(step, 4), 3) for step in range(4)]
    [1.0, 0.868, 0.55, 0.232]
    """

    def after_warmup(self, progress: float) -> float:
        final = self.config.final
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
