"""The command kit finds what is wrong, and passes what is right."""

import inspect
import itertools

import pytest

from helix_core.plugin_system import Registry, use_registry
from helix_core.plugin_system.settings import Settings
from helix_testing import BaseCommandTests

RIGHT = ("right", "right_group")
WRONG = {
    "no_help": "test_it_says_what_it_does",
    "silent_option": "test_it_says_what_it_does",
    "silent_subcommand": "test_it_says_what_it_does",
    "heavy": "test_help_works_and_imports_nothing_heavy",
    "helpless": "test_help_works_and_imports_nothing_heavy",
    "takes_anything": "test_unknown_options_are_refused",
    "fails": "test_it_runs",
    "wordy_json": "test_its_json_parses",
    "nan_json": "test_its_json_parses",
    "no_json": "test_its_json_parses",
    "forgives": "test_errors_end_as_they_say",
    "exits": "test_errors_end_as_they_say",
    "crashes": "test_errors_end_as_they_say",
    "complains_aloud": "test_errors_end_as_they_say",
    "swallows_ctrl_c": "test_ctrl_c_exits_with_130",
    "exits_on_ctrl_c": "test_ctrl_c_exits_with_130",
    "fails_on_ctrl_c": "test_ctrl_c_exits_with_130",
}
MODULES = {"heavy": "wrong_heavy_command"}


@pytest.fixture
def wrong(site):
    """The commands of `wrong_commands`, installed."""
    rows = ", ".join(
        f"CommandDescriptor(name={n.replace('_', '-')!r}, target='{MODULES.get(n, 'wrong_commands')}:{n}', summary='x')"
        for n in (*RIGHT, *WRONG)
    )
    site.plugin("wrong", f"@hookimpl\ndef helix_commands():\n    return [{rows}]\n")
    with use_registry(Registry(Settings())):
        yield


class Kit(BaseCommandTests):
    __test__ = False

    def prepare(self, folder):
        (folder / "file").write_bytes(b"12345")


def failures(name, tmp_path, monkeypatch, capsysbinary, only=None):
    """Which of the kit's tests fail."""
    first = {"right_group": ["size"], "silent_subcommand": ["size"]}.get(name, [])
    fields = {"command": f"wrong/{name.replace('_', '-')}", "arguments": [*first, "file"]}
    kit, numbers = type("Kit", (Kit,), fields)(), itertools.count()

    def place():
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        kit.prepare(folder)
        monkeypatch.chdir(folder)

    given = {"place": place, "capsysbinary": capsysbinary, "wrong": [*first, "absent"]}
    failed = set()
    for label in [only] if only else [label for label in dir(kit) if label.startswith("test_")]:
        test = getattr(kit, label)
        capsysbinary.readouterr()
        try:
            test(**{wanted: given[wanted] for wanted in inspect.signature(test).parameters})
        except AssertionError:
            failed.add(label)
    return failed


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_command_passes(wrong, tmp_path, monkeypatch, capsysbinary, name):
    assert failures(name, tmp_path, monkeypatch, capsysbinary) == set()


@pytest.mark.parametrize(("name", "found_by"), WRONG.items())
def test_each_fault_is_found(wrong, tmp_path, monkeypatch, capsysbinary, name, found_by):
    assert failures(name, tmp_path, monkeypatch, capsysbinary, only=found_by) == {found_by}


def test_every_check_has_a_fault():
    assert {label for label in dir(BaseCommandTests) if label.startswith("test_")} == set(WRONG.values())
