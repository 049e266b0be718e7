"""The schedule kit: a factor in [0, 1] for every step of any run, and nothing but a function of step and total."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from helix_core.errors import ConfigError
from helix_core.kinds.lr_schedule import LRSchedule
from helix_core.plugin_system import create

TOTALS = (1, 2, 3, 7, 100, 400)
LONG = 10**9


class BaseScheduleTests:
    """Set `schedule` to its name, `configs` to options that cover its variants, `impossible` to some it must refuse.

    Each of `impossible` is tried over the first of `configs` and must raise ConfigError.
    """

    schedule: ClassVar[str] = ""
    configs: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    impossible: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @classmethod
    def helix_parametrize(cls, metafunc: pytest.Metafunc) -> None:
        for fixture, values in (("config", cls.configs), ("wrong", cls.impossible)):
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, values, ids=map(_label, values))

    def make(self, config: Mapping[str, Any], **options: Any) -> LRSchedule[Any]:
        """A new instance, with options over those of `config`."""
        made: LRSchedule[Any] = create("lr_schedule", self.schedule, **{**config, **options})
        return made

    def test_unknown_options_are_refused(self, config: Mapping[str, Any]) -> None:
        with pytest.raises(ConfigError, match="no_such_option"):
            self.make(config, no_such_option=1)

    def test_impossible_options_are_refused(self, wrong: Mapping[str, Any]) -> None:
        with pytest.raises(ConfigError):
            self.make(self.configs[0], **wrong)

    @pytest.mark.parametrize("warmup", [0, 1, 5, 0.1, 5000])
    def test_every_step_has_a_factor(self, config: Mapping[str, Any], warmup: float) -> None:
        """In [0, 1], in runs of any length: of one step, and of fewer than the warm-up has."""
        made = self.make(config, warmup=warmup)
        for total in TOTALS:
            factors = _curve(made, total)
            assert all(isinstance(f, float) for f in factors), "a factor is a Python float"
            assert all(0 <= f <= 1 for f in factors), f"of {total} steps one has a factor outside [0, 1]"
            assert max(factors) > 0, f"a run of {total} steps learns nothing"
        for step in (0, 1, LONG // 3, LONG - 1):
            assert 0 <= made(step, LONG) <= 1, f"step {step} of {LONG}"

    def test_the_warm_up_is_a_straight_line(self, config: Mapping[str, Any]) -> None:
        """Over the steps that the option says, as a number or as a share of all."""
        made = self.make(config, warmup=20)
        assert np.allclose(_curve(made, 200)[:20], np.arange(1, 21) / 21, rtol=1e-12, atol=0)
        assert _curve(self.make(config, warmup=0.1), 200) == _curve(made, 200)

    def test_its_own_curve_follows_the_warm_up(self, config: Mapping[str, Any]) -> None:
        warm, cold = _curve(self.make(config, warmup=20), 120), _curve(self.make(config, warmup=0), 100)
        assert np.allclose(warm[20:], cold, rtol=1e-12, atol=1e-12)

    def test_the_order_of_calls_does_not_matter(self, config: Mapping[str, Any], rng: np.random.Generator) -> None:
        made = self.make(config, warmup=3)
        forward = [_curve(made, total) for total in TOTALS]
        asked = [(i, step) for i, total in enumerate(TOTALS) for step in range(total)]
        for i, step in (asked[j] for j in rng.permutation(len(asked))):
            assert made(step, TOTALS[i]) == forward[i][step], f"step {step} of {TOTALS[i]}, asked again"

    def test_a_resumed_run_goes_on_as_before(self, config: Mapping[str, Any]) -> None:
        """A new instance, made of the options that were written down, which never saw the steps before."""
        made = self.make(config, warmup=3)
        options = json.loads(made.config.model_dump_json())
        for total in TOTALS:
            whole = _curve(made, total)
            for start in {0, total // 2, total - 1}:
                again: LRSchedule[Any] = create("lr_schedule", self.schedule, **options)
                assert [again(step, total) for step in range(start, total)] == whole[start:], f"resumed at {start}"

    def test_global_random_numbers_are_left_alone(self, config: Mapping[str, Any]) -> None:
        made = self.make(config)
        python, numpy = random.getstate(), str(np.random.get_state(legacy=False))
        _curve(made, 100)
        assert random.getstate() == python, "it draws from the module `random`"
        assert str(np.random.get_state(legacy=False)) == numpy, "it draws from NumPy's global generator"


def _curve(schedule: LRSchedule[Any], total: int) -> list[float]:
    return [schedule(step, total) for step in range(total)]


def _label(config: Mapping[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in config.items()) or "defaults"
