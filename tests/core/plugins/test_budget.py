"""What must stay cheap stays cheap: asserted as modules that are not imported, not as seconds."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "numba",
    "numpy",
    "mlx",
    "jax",
    "pydantic",
    "rich",
    "structlog",
    "tomlkit",
    "matplotlib",
    "triton",
}


def modules_after(code, site):
    """The top-level modules in a fresh interpreter after `code`."""
    code += "\nimport sys, json; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site.folder), *filter(None, sys.path)])}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_importing_helix_imports_nothing_but_the_standard_library(site):
    new = modules_after("import helix_core; helix_core.__version__", site) - modules_after("", site)
    assert new - set(sys.stdlib_module_names) == {"helix_core"}


def test_emitting_an_event_loads_no_plugin(site):
    new = modules_after("import helix_core; helix_core.emit('step', loss=1.0)", site)
    assert not new & {"pluggy", "stevedore", "importlib_metadata"}


@pytest.mark.parametrize(
    "arguments",
    [["plugins"], ["plugins", "--json"], ["--help"], ["describe", "layer"], ["explain", "layer", "fast"]],
)
def test_listing_commands_import_no_framework(site, arguments):
    for name in ("a", "b", "c"):
        site.layers(name, f"name='{name}'")
    site.layers("fast", "name='fast', requires=('numpy',)")
    environ = "import os; os.environ['HELIX_KERNEL_SELECTIVE_SCAN'] = 'core/reference'\n"
    found = modules_after(f"{environ}from helix_core.cli.main import main\nassert main({arguments!r}) == 0", site)
    assert "fake_fast" in found
    assert not found & HEAVY, found & HEAVY


def test_help_imports_no_command(site):
    code = (
        "from helix_core.cli.main import main\nmain(['--help'])\nimport sys\n"
        "assert not [m for m in sys.modules if m.startswith('helix_core.cli.')"
        " and m.rpartition('.')[2] not in ('main', 'commands', 'compiling')]"
    )
    assert "click" in modules_after(code, site)


def test_every_public_name_exists():
    import helix_core

    for name in helix_core.__all__:
        assert hasattr(helix_core, name), name
    assert set(helix_core.__all__) <= set(dir(helix_core))
    with pytest.raises(AttributeError, match="creat"):
        _ = helix_core.creat
