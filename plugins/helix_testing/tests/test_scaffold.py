"""`helix new`: what it writes installs, passes its own tests, and is found."""

import inspect
import os
import runpy
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from helix_core.errors import UsageError
from helix_core.ops import OPS
from helix_core.plugin_system import Registry, descriptors, use_registry
from helix_core.plugin_system.discovery import GROUP
from helix_core.plugin_system.settings import Settings
from helix_testing.dists import on_path, write_dist
from helix_testing.scaffold import KINDS, write_plugin


def plugin_tests(tmp_path, kind, name, **options):
    """Run the tests of a written plugin. A dist-info beside its sources installs it, as pip would need a network."""
    folder, module = tmp_path / "plugin", name.replace("-", "_")
    write_plugin(kind, name, folder, **options)
    write_dist(
        folder / "src",
        f"helix-plugin-{name}",
        "0.1.0",
        entry_points={GROUP: {module: f"helix_plugin_{module}.plugin"}},
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    # Before what this process found first, so that it is these sources of Helix that the plugin meets.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "src"), *filter(None, sys.path)])}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=280)


@pytest.mark.parametrize(("kind", "options"), [(k, {}) for k in KINDS] + [("kernel", {"op": "selective_scan"})])
def test_the_written_plugin_passes_its_own_tests(tmp_path, kind, options):
    done = plugin_tests(tmp_path, kind, "my-thing", **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    ("kind", "name"), [("lr_schedule", "cosine"), ("command", "doctor"), ("optimizer", "optimizer")]
)
def test_a_name_that_is_taken_is_no_hindrance(tmp_path, kind, name):
    """By another plugin, by a command of core, or by the class that the component derives from."""
    done = plugin_tests(tmp_path, kind, name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_written_plugin_is_found_and_described(tmp_path):
    folder = tmp_path / "plugin"
    write_plugin("layer", "my-thing", folder)
    write_dist(
        folder / "src",
        "helix-plugin-my-thing",
        "0.1.0",
        entry_points={GROUP: {"my_thing": "helix_plugin_my_thing.plugin"}},
    )
    with on_path(folder / "src"), use_registry(Registry(Settings())) as registry:
        assert "my_thing/my-thing" in [c.full_name for c in registry.components("layer")]


def test_every_kind_can_be_begun_and_certified():
    import helix_testing

    assert sorted(KINDS) == sorted(descriptors.KINDS)
    words = {"lr_schedule": "Schedule"}
    assert {f"Base{words.get(kind, kind.capitalize())}Tests" for kind in KINDS} <= set(helix_testing.__all__)


@pytest.mark.parametrize("name", ["Mine", "9lives", "a b", "class", "", "../up", "mine_"])
def test_names_that_cannot_be_used(tmp_path, name):
    with pytest.raises(UsageError, match="cannot name a component"):
        write_plugin("layer", name, tmp_path / "x")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write_plugin("layer", "thing", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_an_unknown_op(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'rms_norm'"):
        write_plugin("kernel", "fast", tmp_path / "x", op="rmsnorm")


@pytest.mark.slow
def test_the_written_plugin_installs_with_pip(tmp_path):
    folder = tmp_path / "plugin"
    write_plugin("layer", "my-thing", folder)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    root, ours = Path(__file__).parents[3], []
    for where in (".", "plugins/helix_plugin_lm", "plugins/helix_plugin_training", "plugins/helix_testing"):
        copy = tmp_path / "ours" / Path(where).name  # a build leaves its folders behind
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            copy.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / where / name, copy)
        source = "helix_core" if where == "." else "src"
        shutil.copytree(root / where / source, copy / source)
        ours.append(str(copy))
    subprocess.run([python, "-m", "pip", "install", "-q", *ours, f"{folder}[test]"], check=True, timeout=280)
    done = subprocess.run([python, "-m", "pytest", "-q", folder], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_new_kernel_has_the_signature_of_its_op(op, tmp_path):
    write_plugin("kernel", "mine", tmp_path / "plugin", op=op.name)
    source = tmp_path / "plugin" / "src" / "helix_plugin_mine" / "kernel.py"
    written = inspect.signature(runpy.run_path(str(source))[op.name]).parameters
    assert list(written) == [*op.arrays, *op.attrs]
    assert {name: written[name].default for name in op.attrs} == op.attrs
