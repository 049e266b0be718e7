"""What a learning-rate schedule is: a factor for every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class LRScheduleConfig(BaseModel):
    """Fields every schedule has. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warmup: int | float = Field(
        0, ge=0, description="steps of linear warm-up; a fraction of all steps if below 1 and not an integer"
    )


ConfigT = TypeVar("ConfigT", bound=LRScheduleConfig)


class LRSchedule(ABC, Generic[ConfigT]):
    """The factor on the peak learning rate: linear warm-up, then the schedule's own curve."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def warmup_steps(self, total: int) -> int:
        """Steps of warm-up in a run of `total` steps."""
        warmup = self.config.warmup
        return round(warmup * total) if isinstance(warmup, float) and warmup < 1 else int(warmup)

    def __call__(self, step: int, total: int) -> float:
        """The factor for step 0 <= step < total."""
        warmup = self.warmup_steps(total)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return self.after_warmup((step - warmup) / max(total - warmup, 1))

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """The factor at 0 <= progress < 1 of what follows the warm-up."""
