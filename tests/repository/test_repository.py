"""What holds for the repository as a whole: versions, layout, a thin core, honest documentation."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import helix_core
from helix_testing.scaffold import write_plugin

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(ROOT.glob("**/pyproject.toml"))
PROJECTS = [p for p in PROJECTS if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]
LIBRARIES = {"helix-device-arrays", "helix-suite"}
FRAMEWORKS = {"torch", "numba", "mlx", "jax", "triton", "pyopencl", "scipy", "pyarrow", "sklearn", "networkx"}


def project(path):
    return tomllib.loads(path.read_text())["project"]


@pytest.mark.parametrize("path", PROJECTS, ids=lambda p: str(p.parent.relative_to(ROOT)))
def test_one_version_and_the_same_bounds_on_core(path):
    facts = project(path)
    assert facts["version"] == helix_core.__version__
    assert facts["license"] == "Apache-2.0"
    assert (path.parent / facts["readme"]).is_file()
    if facts["name"] != "helix-core":
        major, minor, _ = facts["version"].split(".")
        assert f"helix-core>={major}.{minor},<{major}.{int(minor) + 1}" in facts["dependencies"]
        # A library, which other distributions bring along, has nothing for Helix to find.
        assert "helix.plugins" in facts.get("entry-points", {}) or facts["name"] in LIBRARIES
        assert (path.parent / "src").is_dir()
        assert (path.parent / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
        assert (path.parent / "tests").is_dir()


def test_the_makefile_installs_every_distribution():
    makefile = (ROOT / "Makefile").read_text()
    for path in PROJECTS:
        folder = path.parent.relative_to(ROOT)
        assert folder == Path(".") or re.search(rf"-e '?{folder}(?![\w/])", makefile)


def test_core_imports_no_framework():
    for path in (ROOT / "helix_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & FRAMEWORKS, path


def test_plugins_import_nothing_heavy():
    """Every first-party plugin module, imported in a fresh process."""
    modules = [
        module for p in PROJECTS for module in project(p).get("entry-points", {}).get("helix.plugins", {}).values()
    ]
    heavy = FRAMEWORKS | {"numpy", "pydantic"}
    code = f"import sys\nfor m in {modules!r}: __import__(m)\nprint(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_catalogue_names_what_exists():
    from helix_core.plugin_system import catalogue, components

    names = {project(p)["name"] for p in PROJECTS}
    listed = {
        (kind, name): dist
        for kind in ("backend", "generator", "layer")
        for name in catalogue.catalogued(kind)
        if (dist := catalogue.distribution_of(kind, name))
    }
    assert listed
    assert set(listed.values()) <= names
    for kind, name in listed:
        assert name in {c.name for c in components(kind)}


READMES = [path.with_name("README.md") for path in PROJECTS]
PAGES = sorted([*READMES, *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w+)?(?: (\S+))?\n(.*?)^```", re.M | re.S)


def blocks(path):
    return [(m[1] or "", m[2] or "", m[3]) for m in FENCE.finditer(path.read_text())]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_shown_from_a_file_is_that_files(path, tmp_path):
    """A block marked with a path (```python plugins/x.py) stands in that file, line for line.

    Paths below `helix-plugin-` are of the plugin that the page's `helix new` writes.
    """
    written = re.search(r"^helix new (?P<kind>\S+) (?P<name>\S+)(?: --op (?P<op>\S+))?$", path.read_text(), re.M)
    for _, source, text in blocks(path):
        if source and source != "run":
            root = ROOT
            if source.startswith("helix-plugin-"):
                root, folder = tmp_path, tmp_path / source.partition("/")[0]
                if not folder.exists():
                    write_plugin(**{"folder": folder, **{k: v for k, v in written.groupdict().items() if v}})
            assert text in (root / source).read_text(), f"{source} no longer says:\n{text}"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_marked_to_run_runs(path, tmp_path):
    """Blocks marked `run`, in order, in one folder; `$ROOT` is the repository."""
    ours = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{ours}{os.pathsep}{os.environ['PATH']}", "ROOT": str(ROOT)}
    for language, mark, text in blocks(path):
        if mark == "run":
            command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, errors="replace", timeout=280
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_every_environment_variable_is_documented():
    page = (ROOT / "docs" / "environment.md").read_text()
    sources = [
        *(ROOT / "helix_core").rglob("*.py"),
        *ROOT.glob("helix_plugin_*/src/**/*.py"),
        *ROOT.glob("plugins/*/src/**/*.py"),
    ]
    named = {name for path in sources for name in re.findall(r'"(HELIX_[A-Z]+(?:_[A-Z]+)*_?)"', path.read_text())}
    assert len(named) > 5
    for name in named:
        assert f"`{name}" in page, f"{name} is read, but docs/environment.md does not say so"
