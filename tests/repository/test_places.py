"""One place for one thing: an op's kernel is `kernels/<op>.py` in every backend, a command `commands/<verb>.py`."""

import collections
import importlib
import importlib.util
import keyword
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(
    module
    for path in (*ROOT.glob("helix_plugin_*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml"))
    for module in tomllib.loads(path.read_text())["project"].get("entry-points", {}).get("helix.plugins", {}).values()
)
ELSEWHERE = ("helix_plugin_cuda.external", "helix_plugin_torch.")
"""Other packages' kernels, and torch's own functions: a line each."""


def offered(hook):
    """What the plugins' modules return from a hook, as parameters of a test."""
    return [
        pytest.param(descriptor, id=f"{name.partition('.')[0]}-{descriptor.name}")
        for name in PLUGINS
        for descriptor in getattr(importlib.import_module(name), hook, list)()
    ]


def exists(module):
    return importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("command", offered("helix_commands"))
def test_a_command_is_where_its_verb_says(command):
    package = command.target.partition(".")[0]
    verb = command.name + ("_" if keyword.iskeyword(command.name) else "")
    assert command.target == f"{package}.commands.{verb}:command"
    assert exists(f"{package}.commands.{verb}")


@pytest.mark.parametrize("kernel", offered("helix_kernels"))
def test_a_kernel_is_where_its_op_says(kernel):
    module = kernel.target.partition(":")[0]
    if module.startswith(ELSEWHERE):
        return
    package = module.partition(".")[0]
    assert module in (f"{package}.kernels.{kernel.op}", f"{package}.kernels.table")
    assert exists(f"{package}.kernels.{kernel.op}")


@pytest.mark.parametrize(
    "package",
    sorted(
        p.parent
        for glob in ("helix_core", "helix_plugin_*/src/*", "plugins/*/src/*")
        for p in ROOT.glob(f"{glob}/__init__.py")
    ),
    ids=lambda path: path.name,
)
def test_no_two_files_of_a_package_have_one_name(package):
    """But for a command, which may have the name of what it runs."""
    found = collections.defaultdict(list)
    for path in package.rglob("*.py"):
        place = path.relative_to(package)
        if path.name != "__init__.py" and place.parts[0] != "commands":
            found[path.stem.strip("_")].append(str(place))
    assert not [places for places in found.values() if len(places) > 1]
