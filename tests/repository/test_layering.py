"""The layers of the house: imports run downwards only, and no two files need each other."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Within core, each may import itself and what stands before it; files at the top of the package are for everyone.
CORE = ("plugin_system", "ops", "kinds", "reference", "cli")

# What stands on what, among the distributions that are no backend, layer or memory.
BELOW = {
    "helix_core": set(),
    "helix_plugin_lm": {"helix_core"},
    "helix_plugin_training": {"helix_core", "helix_plugin_lm"},
    "helix_testing": {"helix_core", "helix_plugin_lm", "helix_plugin_training"},
    "helix_plugin_torch": {"helix_core"},
    "helix_plugin_cpu": {"helix_core", "helix_plugin_torch"},
    "helix_plugin_cuda": {"helix_core", "helix_plugin_torch"},
    "helix_plugin_jax": {"helix_core"},
    "helix_plugin_metal": {"helix_core"},
    "helix_device_arrays": {"helix_core"},
    "helix_plugin_opencl": {"helix_core", "helix_device_arrays"},
    "helix_plugin_webgpu": {"helix_core", "helix_device_arrays"},
    "helix_plugin_blocks": {"helix_core"},
    "helix_plugin_ssm": {"helix_core"},
    "helix_plugin_synthetic": {"helix_core"},
    "helix_example": {"helix_core"},
    "helix": {"helix_core", "helix_plugin_huggingface", "helix_plugin_lm", "helix_plugin_training"},
}


def packages():
    """Every package of the repository by name, with the folder that holds it."""
    found = {"helix_core": ROOT}
    for folder in (*ROOT.glob("helix_plugin_*/src"), *ROOT.glob("plugins/*/src")):
        found |= {p.name: folder for p in folder.iterdir() if (p / "__init__.py").exists()}
    return found


PACKAGES = packages()


def modules():
    """Every module by its dotted name, with its file."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in (folder / package).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(module):
    """The modules of this repository that a module imports, anywhere in it: at the top, in functions, for types."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


IMPORTS = {module: set(imported(module)) - {module} for module in MODULES}


def test_something_is_looked_at():
    assert len(MODULES) > 300
    assert "helix_core.plugin_system.registry" in IMPORTS["helix_core.plugin_system"]


def test_core_imports_downwards_only():
    def floor(module):
        room = module.split(".")[1] if "." in module else ""
        return CORE.index(room) if room in CORE else -1

    wrong = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        if module.startswith("helix_core.") and floor(module) >= 0
        for other in sorted(others)
        if floor(other) > floor(module)
    ]
    assert not wrong


@pytest.mark.parametrize("package", sorted(BELOW))
def test_a_distribution_imports_what_stands_below_it(package):
    reached = {
        other.partition(".")[0]
        for module, others in IMPORTS.items()
        # A distribution may bring tests for those who build on it; who runs tests has the kit.
        if module.partition(".")[0] == package and module != f"{package}.testing"
        for other in others
    }
    assert reached - {package} <= BELOW[package]


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_two_files_need_each_other(package):
    """A package's own `__init__` may import its modules for its users; the modules take from each other directly."""
    inside = {m: {o for o in others if o.partition(".")[0] == package} for m, others in IMPORTS.items() if
              m.partition(".")[0] == package}  # fmt: skip
    try:
        graphlib.TopologicalSorter(inside).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
