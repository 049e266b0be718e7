"""The schedule kit finds what is wrong, and passes what is right."""

import inspect

import pytest

from helix_core.plugin_system import Registry, use_registry
from helix_core.plugin_system.settings import Settings
from helix_testing import BaseScheduleTests

WRONG = {
    "TakesAnything": "test_unknown_options_are_refused",
    "TooHigh": "test_every_step_has_a_factor",
    "BelowZero": "test_every_step_has_a_factor",
    "NoSingleStep": "test_every_step_has_a_factor",
    "StartsAtZero": "test_every_step_has_a_factor",
    "LongWarmup": "test_every_step_has_a_factor",
    "NumPyNumber": "test_every_step_has_a_factor",
    "NoWarmup": "test_the_warm_up_is_a_straight_line",
    "ShareIsNumber": "test_the_warm_up_is_a_straight_line",
    "CurveFromStart": "test_its_own_curve_follows_the_warm_up",
    "Counts": "test_the_order_of_calls_does_not_matter",
    "OnceComputed": "test_a_resumed_run_goes_on_as_before",
    "NeverRises": "test_a_resumed_run_goes_on_as_before",
    "Noisy": "test_a_resumed_run_goes_on_as_before",
    "DrawsGlobally": "test_global_random_numbers_are_left_alone",
}


@pytest.fixture
def wrong(site):
    """The schedules of `wrong_schedules`, installed."""
    rows = ", ".join(
        f"LRScheduleDescriptor(name={n.lower()!r}, target='wrong_schedules:{n}', summary='',"
        f" config='wrong_schedules:{'Lax' if n == 'TakesAnything' else 'Options'}')"
        for n in ("Right", *WRONG)
    )
    site.plugin("wrong", f"@hookimpl\ndef helix_lr_schedules():\n    return [{rows}]\n")
    with use_registry(Registry(Settings())):
        yield


def failures(name, rng):
    """Which of the kit's tests fail."""
    kit = type("Kit", (BaseScheduleTests,), {"schedule": f"wrong/{name.lower()}"})()
    failed = set()
    for label in (label for label in dir(kit) if label.startswith("test_")):
        test = getattr(kit, label)
        wanted = inspect.signature(test).parameters
        if "wrong" in wanted:
            continue
        given = {"rng": rng} if "rng" in wanted else {}
        for warmup in (0, 1, 5, 0.1, 5000) if "warmup" in wanted else (None,):
            more = {} if warmup is None else {"warmup": warmup}
            try:
                test({}, **given, **more)
            except (AssertionError, pytest.fail.Exception, ZeroDivisionError):
                failed.add(label)
    return failed


def test_a_right_schedule_passes(wrong, rng):
    assert failures("Right", rng) == set()


@pytest.mark.parametrize(("name", "found_by"), WRONG.items())
def test_each_fault_is_found(wrong, rng, name, found_by):
    assert found_by in failures(name, rng)


def test_an_option_that_is_not_refused_is_found(wrong):
    kit = type("Kit", (BaseScheduleTests,), {"schedule": "wrong/right"})()
    kit.test_impossible_options_are_refused({"final": 2.0})
    with pytest.raises(pytest.fail.Exception):
        kit.test_impossible_options_are_refused({"final": 0.5})


def test_every_check_has_a_fault():
    tried = {*WRONG.values(), "test_impossible_options_are_refused"}
    assert {label for label in dir(BaseScheduleTests) if label.startswith("test_")} == tried
