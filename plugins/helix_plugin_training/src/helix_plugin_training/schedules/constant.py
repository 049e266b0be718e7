"""Constant learning rate."""

from helix_core.kinds.lr_schedule import Schedule, ScheduleConfig


class Constant(Schedule[ScheduleConfig]):
    """The peak rate throughout, after any warm-up."""

    def after_warmup(self, progress: float) -> float:
        return 1.0
