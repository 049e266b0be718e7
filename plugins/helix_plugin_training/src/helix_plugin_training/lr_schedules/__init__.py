"""Learning-rate schedules: a factor on the peak rate for every step."""

from helix_core.kinds.lr_schedule import LRSchedule, LRScheduleConfig

__all__ = ["LRSchedule", "LRScheduleConfig"]
