"""Source archives and wheels of every distribution: they build, hold what they should, and need no checkout."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from helix_plugin_cpu._isa import features
from helix_plugin_cpu.prepared.targets import TARGETS, target_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a build environment for each wheel
ROOT = Path(__file__).parents[2]
FOUND = [*ROOT.glob("helix_plugin_*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")]
PROJECTS = [ROOT, *(path.parent for path in sorted(FOUND))]
PREPARED = "helix_plugin_cpu/prepared"
RECIPE = """
name = "smoke"
model = {d_model = 8, n_layers = 1, mixer = {name = "mamba", d_state = 2}}
data.source = "text.txt"
training = {steps = 2, batch_size = 2, seq_len = 16}
sample = {prompt = "a", max_bytes = 2}
"""


def tracked(folder):
    """The files of a distribution that are in the repository, with the core's taken for the root."""
    listed = subprocess.run(["git", "ls-files", "."], cwd=folder, capture_output=True, text=True, check=True)
    files = listed.stdout.splitlines()
    return [f for f in files if folder != ROOT or "/" not in f or f.startswith("helix_core/")]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder with a wheel of every distribution, built from its source archive, which is built from a copy."""
    work = tmp_path_factory.mktemp("build")
    for folder in PROJECTS:
        copy = work / "sources" / tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]
        for file in tracked(folder):
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / file, copy / file)
        if folder.name == "helix_plugin_cpu":
            prepare = [sys.executable, "-m", "helix_plugin_cpu.prepared", "--folder"]
            subprocess.run([*prepare, str(copy / "src" / PREPARED)], check=True, timeout=900, stdout=subprocess.DEVNULL)
        command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(work / "archives"), str(copy)]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    archives = [str(archive) for archive in sorted((work / "archives").iterdir())]
    assert len(archives) == len(PROJECTS)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(work / "wheels"), *archives]
    subprocess.run(command, check=True, timeout=900)
    return work / "wheels"


def test_a_wheel_holds_its_sources_its_licence_and_nothing_else(wheels):
    found = sorted(wheels.glob("*.whl"))
    assert len(found) == len(PROJECTS)
    for wheel in found:
        names = zipfile.ZipFile(wheel).namelist()
        package = "helix" if wheel.name.startswith("helix_suite-") else wheel.name.split("-")[0]
        assert {name.split("/")[0] for name in names} == {package, wheel.name.rsplit("-", 3)[0] + ".dist-info"}
        assert any(name.endswith("licenses/LICENSE") for name in names), wheel
        sources = {name for name in names if name.startswith(f"{package}/")}
        folder = next(f for f in (ROOT, *(p / "src" for p in PROJECTS)) if (f / package / "__init__.py").exists())
        ours = {p.relative_to(folder).as_posix() for p in (folder / package).rglob("*") if p.is_file()}
        if package == "helix_plugin_cpu":
            ours |= {f"{PREPARED}/{target}.zip" for target in TARGETS}
        assert sources == {name for name in ours if "__pycache__" not in name and not name.endswith((".nbi", ".nbc"))}


def test_wheels_work_without_the_checkout(wheels, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    machine_code = tmp_path / "machine-code"
    names = [str(p) for p in sorted(wheels.glob("*.whl"))]
    install = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), *names]
    subprocess.run(install, check=True, timeout=800)

    def helix(*arguments):
        command = [python, "-m", "helix_core.cli.main", *arguments]
        settings = {"cwd": tmp_path, "env": os.environ | {"NUMBA_CACHE_DIR": str(machine_code)}, "timeout": 280}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = json.loads(helix("plugins", "--json"))
    assert {plugin["status"] for plugin in listed} == {"ok"}
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question " * 50)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    run = json.loads(helix("train", "recipe.toml", "--json"))["run"]
    assert helix("generate", run, "--prompt", "to", "--max-bytes", "3").startswith("to")
    if target_for(features()) is not None:
        assert not list(machine_code.rglob("*.nb?")), "kernels were compiled, which the wheel carries"
