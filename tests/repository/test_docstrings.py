"""Every public definition says in a line what it is, and every example in a docstring runs as it stands."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from helix_core.plugin_system import components, explain

ROOT = Path(__file__).parents[2]
SOURCES = {ROOT: ["helix_core"]} | {
    src: sorted(p.parent.name for p in src.glob("*/__init__.py"))
    for src in sorted([*ROOT.glob("helix_plugin_*/src"), *ROOT.glob("plugins/*/src")])
}
MODULES = {
    ".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__"): path
    for src, packages in SOURCES.items()
    for package in packages
    for path in sorted((src / package).rglob("*.py"))
}
HARDWARE = {"jax", "mlx", "numba", "pyopencl", "torch", "triton", "wgpu"}
"""Libraries that a machine may lack."""


def imported(name):
    """A module, or a skip where the library of its hardware is absent."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] in HARDWARE:
            pytest.skip(f"{error.name} is not installed")
        raise


def documented(definition):
    """Whether there is a text, its own or that of what it overrides, and not the one that `dataclass` makes up."""
    text = vars(definition).get("__doc__") if inspect.isclass(definition) else inspect.getdoc(definition)
    return bool(str(text or "").strip()) and not str(text).startswith(f"{definition.__name__}(")


def undocumented(module):
    """Public definitions of a module that say nothing. Implementations of hooks are documented by the hooks."""
    for name, value in vars(module).items():
        hook = hasattr(value, "helix_impl") or name.startswith("helix_")
        if name.startswith("_") or hook or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) and not documented(value):
            yield name
        # A namespace of arrays has what the array API standard describes.
        if inspect.isclass(value) and name != "Namespace":
            if not documented(value):
                yield name
            for member, found in vars(value).items():
                known = isinstance(found, property | classmethod | staticmethod) or inspect.isfunction(found)
                if (
                    known
                    and not member.startswith(("_", "test_", "helix_"))
                    and not inspect.getdoc(getattr(value, member))
                ):
                    yield f"{name}.{member}"


@pytest.mark.parametrize("name", MODULES)
def test_public_definitions_say_what_they_are(name):
    module = imported(name)
    assert module.__doc__, f"{name} says nothing"
    assert not list(undocumented(module))


def unusable_backends():
    """What examples call the backends that cannot be used here, with the reason."""
    found = {f'"{c.name}"': explain("backend", c.full_name).error for c in components("backend")}
    return {name: error for name, error in found.items() if error is not None}


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if ">>>" in path.read_text()])
def test_examples_run(name, tmp_path, monkeypatch):
    """In an empty folder; an example that names a backend that cannot be used here is left out."""
    module = imported(name)
    monkeypatch.chdir(tmp_path)
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests, f"doctest finds none of the examples of {name}"
    unusable = unusable_backends()
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    ran = 0
    for test in tests:
        if any(backend in example.source for backend in unusable for example in test.examples):
            continue
        report = []
        runner.run(test, out=report.append)
        assert not runner.failures, "".join(report)
        ran += 1
    assert not list(tmp_path.iterdir()), "an example leaves files behind"
    if not ran:
        pytest.skip("; ".join(map(str, unusable.values())))


SHOWN = ("backend", "generator", "layer", "lr_schedule", "memory", "optimizer")
"""Kinds of components that users create by name."""


@pytest.mark.parametrize("component", [c for kind in SHOWN for c in components(kind)], ids=lambda c: c.full_name)
def test_a_component_shows_how_it_is_used(component):
    if component.plugin == "example":
        pytest.skip("an example itself")
    module, _, name = component.descriptor.target.partition(":")
    assert ">>>" in inspect.getdoc(getattr(imported(module), name))


@pytest.mark.parametrize("front", ["helix", "helix_plugin_torch.nn", "helix_plugin_torch.functional"])
def test_a_front_door_shows_how_each_part_is_used(front):
    module = imported(front)
    public = [name for name in dir(module) if not name.startswith("_")]
    assert public
    silent = [name for name in public if ">>>" not in (inspect.getdoc(getattr(module, name)) or "")]
    assert not silent
