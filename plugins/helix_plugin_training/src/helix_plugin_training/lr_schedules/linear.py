"""Linear decay."""

from pydantic import Field

from helix_core.kinds.lr_schedule import LRSchedule, LRScheduleConfig


class LinearConfig(LRScheduleConfig):
    """Options of the linear schedule."""

    final: float = Field(0.0, ge=0, le=1, description="factor at the end")


class Linear(LRSchedule[LinearConfig]):
    """A straight line from the peak to `final`, after any warm-up.

    >>> from helix_core import create
    >>> schedule = create("lr_schedule", "linear", warmup=0)
    >>> [schedule(step, 4) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """

    def after_warmup(self, progress: float) -> float:
        return 1.0 + (self.config.final - 1.0) * progress
