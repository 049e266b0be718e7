"""The generator kit finds what is wrong, and passes what is right."""

import contextlib
import warnings

import pytest

from helix_core.plugin_system import Registry, use_registry
from helix_core.plugin_system.settings import Settings
from helix_testing import BaseGeneratorTests

RIGHT = ("Right",)
WRONG = {
    "Counts": "test_order_and_instance_do_not_matter",
    "IgnoresSeed": "test_seeds_and_indices_matter",
    "Global": "test_global_random_numbers_are_left_alone",
    "KeepsWorld": "test_order_and_instance_do_not_matter",
    "Aliases": "test_samples_belong_to_who_asked",
    "OtherType": "test_its_schema_is_kept",
    "Outside": "test_tokens_are_what_a_model_can_learn_from",
    "Unmasked": "test_tokens_are_what_a_model_can_learn_from",
    "Infinite": "test_its_schema_is_kept",
}


@pytest.fixture
def wrong(site):
    """The generators of `wrong_generators`, installed."""
    rows = ", ".join(
        f"GeneratorDescriptor(name={n.lower()!r}, target='wrong_generators:{n}', summary='',"
        f" config='wrong_generators:Options', provides={() if n == 'Infinite' else ('tokens',)!r})"
        for n in (*RIGHT, *WRONG)
    )
    site.plugin("wrong", f"@hookimpl\ndef helix_generators():\n    return [{rows}]\n")
    with use_registry(Registry(Settings())):
        yield


def failures(name, rng):
    """Which of the kit's tests fail; the one in another process needs an installed generator and is left out."""
    kit = type("Kit", (BaseGeneratorTests,), {"__test__": False, "generator": f"wrong/{name.lower()}"})()
    checks = {
        "test_its_schema_is_kept": ({}, rng),
        "test_tokens_are_what_a_model_can_learn_from": ({},),
        "test_unknown_options_are_refused": ({},),
        "test_seeds_and_indices_out_of_range_are_refused": ({},),
        "test_order_and_instance_do_not_matter": ({}, rng),
        "test_threads_and_shards_give_the_same_bytes": ({},),
        "test_seeds_and_indices_matter": ({},),
        "test_global_random_numbers_are_left_alone": ({},),
        "test_samples_belong_to_who_asked": ({},),
    }
    failed = set()
    for check, arguments in checks.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # log(0), which `Infinite` takes
            passed = False
            with contextlib.suppress(AssertionError, pytest.fail.Exception):
                getattr(kit, check)(*arguments)
                passed = True
            failed |= set() if passed else {check}
    return failed


def test_a_right_generator_passes(wrong, rng):
    assert failures("Right", rng) == set()


@pytest.mark.parametrize(("name", "found_by"), WRONG.items())
def test_each_fault_is_found(wrong, rng, name, found_by):
    assert found_by in failures(name, rng)


def test_an_option_that_is_not_refused_is_found(wrong):
    kit = type("Kit", (BaseGeneratorTests,), {"__test__": False, "generator": "wrong/right"})()
    with pytest.raises(pytest.fail.Exception):
        kit.test_impossible_options_are_refused({"size": 3})
