"""Every plugin by itself: with the core and what it declares to require, and nothing else, it is found and works."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECTS = {
    facts["name"]: facts
    for path in sorted(ROOT.glob("**/pyproject.toml"))
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    for facts in [tomllib.loads(path.read_text())["project"]]
}
PLUGINS = sorted(name for name, facts in PROJECTS.items() if "helix.plugins" in facts.get("entry-points", {}))


def required(*names):
    """These distributions and all that they need, each with its canonical name."""
    found, done, left = {}, set(), [Requirement(name) for name in names]
    while left:
        need = left.pop()
        name = re.sub(r"[-_.]+", "-", need.name).lower()
        for extra in {"", *need.extras} - {extra for other, extra in done if other == name}:
            done.add((name, extra))
            found[name] = importlib.metadata.distribution(name)
            for text in found[name].requires or ():
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    left.append(further)
    return found


def install(folder, *names):
    """A folder with these distributions and their requirements, as links to where they are installed."""
    folder.mkdir()
    for name, dist in required(*names).items():
        parts = {}
        for file in dist.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.startswith("__editable__"):
                parts[top] = Path(str(dist.locate_file(top)))
        if name in PROJECTS:  # an editable install has no files of its own
            package = "helix" if name == "helix-suite" else name.replace("-", "_")
            (origin,) = importlib.util.find_spec(package).submodule_search_locations
            parts[package] = Path(origin)
        for top, target in parts.items():
            if target.exists() and not (folder / top).exists():
                (folder / top).symlink_to(target)
    return folder


def python(folder, *args):
    """Run Python with the standard library and `folder`, without the packages of this environment."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HELIX"))}
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", *args],
        capture_output=True, text=True, timeout=240, env=env | {"PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


USE = """
import json
import numpy as np
from helix_core import create, select
from helix_core.plugin_system.descriptors import KINDS
from helix_core.errors import ComponentUnavailable
from helix_core.kinds.params import init_params
from helix_core.plugin_system import components
from helix_core.plugin_system.refs import load_ref
plugins, unusable = set(), []
for kind in KINDS:
    for found in components(kind):
        plugins.add(found.plugin)
        try:
            if kind != "kernel":
                select(kind, found.full_name)
            load_ref(found.descriptor.target)
            if kind == "backend":
                create(kind, found.full_name).bind(mode="infer")
        except ComponentUnavailable as error:
            unusable.append([found.full_name, str(error)])
        if kind == "layer":
            backend, layer = create("backend", "reference"), create("layer", found.full_name, d_model=64)
            params = {name: backend.asarray(p) for name, p in init_params(layer.param_specs(), 0).items()}
            y, _ = layer.apply(backend.bind(), params, np.ones((1, 5, 64), np.float32))
            assert y.shape == (1, 5, 64) and np.isfinite(y).all(), found.full_name
print(json.dumps([sorted(plugins), unusable]))
"""


@pytest.mark.parametrize("name", ["helix-core", *PLUGINS])
def test_with_the_core_alone(tmp_path, name):
    """The command line lists it, and every component of it loads; layers compute, and backends bind."""
    folder = install(tmp_path / "site", "helix-core", name)
    ours = {other: facts for other, facts in PROJECTS.items() if other in required("helix-core", name)}
    expected = {key for facts in ours.values() for key in facts.get("entry-points", {}).get("helix.plugins", {})}
    listed = python(folder, "-m", "helix_core.cli.main", "plugins")
    for other, facts in PROJECTS.items():
        for key in facts.get("entry-points", {}).get("helix.plugins", {}):
            assert bool(re.search(rf"^{key} .* ok\b", listed, re.M)) == (other in ours), listed
    python(folder, "-m", "helix_core.cli.main", "doctor")
    found, unusable = json.loads(python(folder, "-c", USE))
    assert set(found) <= expected | {"core"}
    for component, reason in unusable:
        # Of what is installed, only hardware that is not here may be out of use.
        assert component.startswith(("cuda/", "opencl/", "webgpu/")), (component, reason)
