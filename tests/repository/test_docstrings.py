"""Every example in a docstring runs as it stands."""

import doctest
import importlib
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
