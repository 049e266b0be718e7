"""Schedules with one fault each, which the kit must find."""

import functools
import random

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.lr_schedule import LRSchedule, LRScheduleConfig


class Options(LRScheduleConfig):
    final: float = Field(0.1, ge=0, le=1)


class Lax(Options):
    """Throws away what it does not know before anyone sees it."""

    @model_validator(mode="before")
    @classmethod
    def known(cls, options):
        return {name: value for name, value in options.items() if name in cls.model_fields}


class Right(LRSchedule[Options]):
    """A straight line from the peak to `final`."""

    def after_warmup(self, progress):
        return 1 + (self.config.final - 1) * progress


class TakesAnything(Right):
    pass


class TooHigh(Right):
    def after_warmup(self, progress):
        return 1.2 * super().after_warmup(progress)


class BelowZero(Right):
    """Reaches zero before the end."""

    def after_warmup(self, progress):
        return 1 - 1.5 * progress


class NoSingleStep(Right):
    """Spreads the curve over total - 1, which one step has not."""

    def __call__(self, step, total):
        return self.after_warmup(step / (total - 1)) if self.warmup_steps(total) == 0 else super().__call__(step, total)


class StartsAtZero(Right):
    """The only step of a run of one learns nothing."""

    def after_warmup(self, progress):
        return progress


class LongWarmup(Right):
    """Divides by what is left after the warm-up."""

    def __call__(self, step, total):
        warmup = self.warmup_steps(total)
        return (step + 1) / (warmup + 1) if step < warmup < total else (total - step) / (total - warmup)


class NumPyNumber(Right):
    def after_warmup(self, progress):
        return np.float32(super().after_warmup(progress))


class NoWarmup(Right):
    def __call__(self, step, total):
        return self.after_warmup(step / total)


class ShareIsNumber(Right):
    """Takes the share of steps for a number of steps."""

    def warmup_steps(self, total):
        return int(self.config.warmup)


class CurveFromStart(Right):
    """Its curve begins with the run, under the warm-up."""

    def __call__(self, step, total):
        warmup = self.warmup_steps(total)
        return (step + 1) / (warmup + 1) if step < warmup else self.after_warmup(step / total)


class Counts(Right):
    """Counts its calls, not the steps of the run."""

    def __init__(self, config):
        super().__init__(config)
        self.calls = 0

    def __call__(self, step, total):
        self.calls += 1
        return super().__call__(min(self.calls - 1, total - 1), total)


class OnceComputed(Right):
    """The curve of the first run that it was asked for."""

    @functools.cached_property
    def first(self):
        return []

    def __call__(self, step, total):
        self.first.append(total)
        return super().__call__(min(step, self.first[0] - 1), self.first[0])


class NeverRises(Right):
    """At most what it said last: right in order, and not where a run is resumed."""

    def __init__(self, config):
        super().__init__(config)
        self.last = None

    def __call__(self, step, total):
        factor = super().__call__(step, total)
        self.last = factor if step == 0 or self.last is None else 0.5 * (self.last + factor)
        return self.last


class Noisy(Right):
    def after_warmup(self, progress):
        return super().after_warmup(progress) * random.random()


class DrawsGlobally(Right):
    """Uses up a random number that someone seeded."""

    def after_warmup(self, progress):
        np.random.rand()
        return super().after_warmup(progress)
