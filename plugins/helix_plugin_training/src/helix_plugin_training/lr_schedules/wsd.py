"""Warm-up, stable, decay."""

import math

from pydantic import Field

from helix_core.kinds.lr_schedule import LRSchedule, LRScheduleConfig


class WSDConfig(LRScheduleConfig):
    """Options of the warm-up-stable-decay schedule."""

    decay: float = Field(0.2, gt=0, le=1, description="share of the steps after warm-up spent on decay")
    final: float = Field(0.0, ge=0, le=1, description="factor at the end")


class WSD(LRSchedule[WSDConfig]):
    """The peak rate, then a decay shaped 1 - sqrt over the last `decay` share of the steps.

    Source: Hu et al., MiniCPM, 2024; the 1-sqrt shape from Hägele et al., Scaling Laws and Compute-Optimal Training
    Beyond Fixed Training Durations, 2024.

    >>> from helix_core import create
    >>> schedule = create("lr_schedule", "wsd", warmup=0, decay=0.5)
    >>> [round(schedule(step, 8), 3) for step in range(8)]
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.293, 0.134]
    """

    def after_warmup(self, progress: float) -> float:
        start = 1.0 - self.config.decay
        if progress < start:
            return 1.0
        into = (progress - start) / self.config.decay
        return 1.0 + (self.config.final - 1.0) * math.sqrt(into)
