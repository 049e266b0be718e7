"""Learning-rate schedules: a factor on the peak rate for every step."""

from helix_core.schedules.base import Schedule, ScheduleConfig

__all__ = ["Schedule", "ScheduleConfig"]
