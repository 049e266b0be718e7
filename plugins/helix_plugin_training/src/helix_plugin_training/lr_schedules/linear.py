"""Linear decay."""

from pydantic import Field

from helix_core.kinds.lr_schedule import LRSchedule, LRScheduleConfig


class LinearConfig(LRScheduleConfig):
    """Options of the linear schedule."""

    final: float = Field(0.0, ge=0, le=1, description="factor at the end")


class Linear(LRSchedule[LinearConfig]):
    """A straight line from the peak to `final`, after any warm-up."""

    def after_warmup(self, progress: float) -> float:
        return 1.0 + (self.config.final - 1.0) * progress
