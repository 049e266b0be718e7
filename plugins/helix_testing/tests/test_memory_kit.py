"""The memory kit finds what is wrong, and passes what is right."""

import inspect

import numpy as np
import pytest

from helix_core.plugin_system import Registry, use_registry
from helix_core.plugin_system.settings import Settings
from helix_testing import BaseMemoryTests

WRONG = {
    "ReusesIds": "test_ids_are_never_given_twice_after_a_reload_either",
    "KeepsKeys": "test_what_it_holds_is_its_own",
    "HandsOutIds": "test_what_it_holds_is_its_own",
    "NarrowsValues": "test_values_are_kept_to_the_last_bit",
    "LosesValuesOnDisk": "test_values_are_kept_to_the_last_bit",
    "WideScores": "test_answers_have_the_types_that_they_should",
    "CountsTwice": "test_an_id_named_twice_is_one_item",
    "SavesAndClears": "test_saving_changes_nothing",
    "ReadsPacked": "test_keys_may_lie_anyhow_in_memory",
}


@pytest.fixture
def wrong(site):
    """The memories of `wrong_memories`, installed."""
    rows = ", ".join(
        f"MemoryDescriptor(name={n.lower()!r}, target='wrong_memories:{n}', summary='',"
        " config='helix_core.kinds.memory:MemoryConfig')"
        for n in ("Right", *WRONG)
    )
    site.plugin("wrong", f"@hookimpl\ndef helix_memories():\n    return [{rows}]\n")
    with use_registry(Registry(Settings())):
        yield


def failures(name, rng, tmp_path):
    """Which of the kit's tests fail; those with a process of their own need an installed memory and are left out."""
    kit = type("Kit", (BaseMemoryTests,), {"memory": f"wrong/{name.lower()}", "config": {"dim": 8}, "recall": 1.0})()
    failed = set()
    for label in (label for label in dir(kit) if label.startswith("test_")):
        test = getattr(kit, label)
        wanted = inspect.signature(test).parameters
        if label == "test_a_killed_save_and_a_full_disk_lose_nothing":
            continue
        folder = tmp_path / label
        folder.mkdir()
        known = {"rng": rng, "tmp_path": folder, "bad": np.nan}
        try:
            test(**{name: known[name] for name in wanted})
        except AssertionError:
            failed.add(label)
    return failed


def test_a_right_memory_passes(wrong, rng, tmp_path):
    assert failures("Right", rng, tmp_path) == set()


@pytest.mark.parametrize(("name", "found_by"), WRONG.items())
def test_each_fault_is_found(wrong, rng, tmp_path, name, found_by):
    assert found_by in failures(name, rng, tmp_path)
