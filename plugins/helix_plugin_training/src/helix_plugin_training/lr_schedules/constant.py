"""Constant learning rate."""

from helix_core.kinds.lr_schedule import LRSchedule, LRScheduleConfig


class Constant(LRSchedule[LRScheduleConfig]):
    """The peak rate throughout, after any warm-up.

    >>> from helix_core import create
    >>> schedule = create("lr_schedule", "constant", warmup=2)
    >>> [round(schedule(step, 8), 3) for step in range(4)]
    [0.333, 0.667, 1.0, 1.0]
    """

    def after_warmup(self, progress: float) -> float:
        return 1.0
