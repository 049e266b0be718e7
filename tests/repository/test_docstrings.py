"""Every public definition says in a line what it is; components show their use; every example runs as it stands."""

import ast
import doctest
import importlib
import inspect
import operator
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


def public_definitions(tree, prefix=""):
    """The classes, functions and methods without a leading underscore that a module or class defines, by name."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from public_definitions(node, prefix)
        elif not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{prefix}{node.name}.")


def documented_elsewhere(name, node):
    """Whether others say it: a hook's specification, the array API standard, the last overload, the name of a test."""
    owner, _, member = name.rpartition(".")
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    return (
        not decorators.isdisjoint({"hookimpl", "overload"})
        or owner == "Namespace"
        or member.startswith("test_")
        or member == "helix_parametrize"  # which the kit's `pytest_generate_tests` calls
    )


def inherits_docstring(module, name):
    """Whether a method or property has the docstring of one that it overrides."""
    owner, _, member = name.rpartition(".")
    if not owner:
        return False
    bases = operator.attrgetter(owner)(imported(module)).__mro__[1:]
    overridden = [vars(base)[member] for base in bases if member in vars(base)]
    # A plain value has the docstring of its type.
    return any(inspect.getdoc(value) not in (None, inspect.getdoc(type(value))) for value in overridden)


@pytest.mark.parametrize("name", MODULES)
def test_public_definitions_say_in_a_line_what_they_are(name):
    """A docstring begins with a sentence on a line of its own; a method without a docstring has that of its base."""
    tree = ast.parse(MODULES[name].read_text())
    texts = {"the module": ast.get_docstring(tree)}
    for definition, node in public_definitions(tree):
        text = ast.get_docstring(node)
        if text or not (documented_elsewhere(definition, node) or inherits_docstring(name, definition)):
            texts[definition] = text or ""
    assert not [definition for definition, text in texts.items() if not text]
    assert not {d: text for d, text in texts.items() if not text.partition("\n")[0].endswith((".", ":", "?"))}


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
