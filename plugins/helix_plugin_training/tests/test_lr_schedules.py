"""Learning-rate schedules: the kit, and their curves."""

import itertools

import pytest

from helix_core.plugin_system import create
from helix_testing import BaseScheduleTests

TOTAL = 1000


class TestConstant(BaseScheduleTests):
    schedule = "constant"
    impossible = ({"warmup": -1}, {"final": 0.5})


class TestLinear(BaseScheduleTests):
    schedule = "linear"
    configs = ({}, {"final": 1.0})
    impossible = ({"final": -0.1}, {"final": 1.1})


class TestCosine(BaseScheduleTests):
    schedule = "cosine"
    configs = ({}, {"final": 0.0}, {"final": 1.0})
    impossible = ({"final": -0.1}, {"final": 1.1})


class TestWSD(BaseScheduleTests):
    schedule = "wsd"
    configs = ({}, {"decay": 1.0}, {"decay": 1e-9, "final": 0.5})
    impossible = ({"decay": 0.0}, {"decay": 1.1}, {"final": 1.1})


def curve(name, **config):
    schedule = create("lr_schedule", name, **config)
    return [schedule(step, TOTAL) for step in range(TOTAL)]


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "wsd"])
def test_warmup_rises_linearly_to_the_peak_and_never_exceeds_it(name):
    values = curve(name, warmup=100)
    steps = [b - a for a, b in itertools.pairwise(values[:101])]
    assert values[0] == pytest.approx(1 / 101)
    assert all(step == pytest.approx(1 / 101) for step in steps)
    assert max(values) == values[100] == 1.0


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "wsd"])
def test_a_fraction_of_warmup_means_that_share_of_the_steps(name):
    assert curve(name, warmup=0.1) == curve(name, warmup=100)


def test_each_shape():
    assert set(curve("constant")) == {1.0}
    linear = curve("linear", final=0.2)
    assert linear[500] == pytest.approx(0.6)
    cosine = curve("cosine", final=0.1)
    assert cosine[500] == pytest.approx(0.55)
    assert cosine[999] == pytest.approx(0.1, abs=1e-4)
    wsd = curve("wsd", decay=0.2, final=0.0)
    assert set(wsd[:800]) == {1.0}
    assert wsd[850] == pytest.approx(0.5)  # 1 - sqrt(1/4)
    assert wsd[999] < 0.01


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_after_warmup_the_rate_never_rises(name):
    values = curve(name, warmup=10)[10:]
    assert all(a >= b for a, b in itertools.pairwise(values))
