"""Constant learning rate."""

from helix_core.kinds.lr_schedule import LRSchedule, LRScheduleConfig


class Constant(LRSchedule[LRScheduleConfig]):
    """The peak rate throughout, after any warm-up."""

    def after_warmup(self, progress: float) -> float:
        return 1.0
