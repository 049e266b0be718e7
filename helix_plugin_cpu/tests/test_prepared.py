"""Machine code that wheels carry: made for other processors, checked before it runs, equal to what is compiled."""

import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from helix_core.events import subscribe
from helix_plugin_cpu import _isa
from helix_plugin_cpu.kernels import _blocks
from helix_plugin_cpu.kernels._jit import SOURCES, Kernel
from helix_plugin_cpu.prepared import archive, load
from helix_plugin_cpu.prepared.build import build, listed
from helix_plugin_cpu.prepared.targets import TARGETS, target_for

NAME = "_blocks.add_parts.qqqqqqq"
MACHINES = {"x86-64-v3": 62, "x86-64-v4": 62, "aarch64": 183}
"""ELF's numbers of the machines."""
HERE = target_for(_isa.features())
needs_a_target = pytest.mark.skipif(HERE is None, reason="no code is prepared for this machine")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archives of one small kernel for all targets."""
    folder = tmp_path_factory.mktemp("archives")
    (folder / "kernels.txt").write_text(NAME + "\n")
    build(folder, TARGETS, folder / "kernels.txt")
    return folder


@pytest.fixture
def installed(archives, monkeypatch):
    """The archives as if they had come with the installation; no kernel is loaded yet."""
    monkeypatch.setattr(archive, "FOLDER", archives)
    load.opened.cache_clear()
    yield archives
    load.opened.cache_clear()


def told(use):
    """What `use` returns, and what was told meanwhile of archives and compilation."""
    events = []
    with subscribe(lambda event: events.append(event)):
        found = use()
    return found, [(e.name, dict(e.data)) for e in events if e.name in ("prepared_unused", "compiling")]


@pytest.mark.parametrize("target", TARGETS)
def test_an_archive_holds_an_object_for_its_machine(archives, target):
    opened = archive.Archive(archive.archive_of(target, archives), target, SOURCES)
    assert len(opened) == 1
    data = opened.read(NAME)
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little") == MACHINES[target]


def add(kernel):
    parts, sums = torch.arange(24.0).reshape(3, 8), torch.zeros(8)
    counter = np.zeros(1, np.int64)
    kernel(counter.ctypes.data, 1, 0, parts.data_ptr(), 3, 8, sums.data_ptr())
    return sums


@needs_a_target
def test_prepared_code_is_run_and_does_what_compiled_code_does(installed):
    compiled = add(_blocks.add_parts)
    found, events = told(lambda: add(Kernel(_blocks.add_parts.function)))
    assert events == []
    assert torch.equal(found, compiled)
    assert torch.equal(found, torch.arange(24.0).reshape(3, 8).sum(0))


@needs_a_target
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "BadZipFile: File is not a zip file"),
        (lambda path: path.write_bytes(b""), "BadZipFile: File is not a zip file"),
        (lambda path: rewritten(path, lambda index: index | {"sources": "0"}), "it was made of other sources"),
        (lambda path: rewritten(path, lambda index: index | {"target": "vax"}), "it is for vax"),
        (lambda path: rewritten(path, lambda index: {}), "KeyError: 'target'"),
        (lambda path: rewritten(path, lambda index: index | {"kernels": entry("0.o")}), NAME),
        (lambda path: rewritten(path, lambda index: index | {"kernels": entry("9.o")}), "9.o"),
    ],
)
def test_an_archive_that_must_not_run_is_told_and_the_kernel_is_compiled(
    archives, tmp_path, monkeypatch, damage, reason
):
    path = archive.archive_of(HERE.name, tmp_path)
    path.write_bytes(archive.archive_of(HERE.name, archives).read_bytes())
    damage(path)
    monkeypatch.setattr(archive, "FOLDER", tmp_path)
    load.opened.cache_clear()
    try:
        found, events = told(lambda: add(Kernel(_blocks.add_parts.function)))
    finally:
        load.opened.cache_clear()
    assert torch.equal(found, torch.arange(24.0).reshape(3, 8).sum(0))
    assert [name for name, _ in events][:1] == ["prepared_unused"]
    assert reason in events[0][1]["reason"]


def entry(file):
    return {NAME: {"file": file, "sha256": "0"}}


def rewritten(path, change):
    """Write an archive anew with another index."""
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist()}
    files["index.json"] = json.dumps(change(json.loads(files["index.json"]))).encode()
    with zipfile.ZipFile(path, "w") as new:
        for name, data in files.items():
            new.writestr(name, data)


@needs_a_target
def test_native_code_can_be_asked_for(installed, monkeypatch):
    monkeypatch.setenv("HELIX_CPU_ISA", "native")
    assert load.address(NAME, SOURCES) is None


def test_a_target_is_taken_by_what_it_needs():
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        pytest.skip("the targets of x86-64")
    v3, v4 = TARGETS["x86-64-v3"], TARGETS["x86-64-v4"]
    assert target_for(v3.needs) is v3
    assert target_for({*v4.needs, "avx512bf16"}) is v4
    assert target_for(set(v3.needs) - {"fma"}) is None
    assert target_for({*v3.needs, "avx512f"}) is None, "kernels would take the tiles of AVX-512, and v4 needs more"


def test_the_list_names_kernels_that_are_there():
    for name in listed():
        module, function, codes = name.split(".")
        __import__(f"helix_plugin_cpu.kernels.{module}")
        kernel = getattr(sys.modules[f"helix_plugin_cpu.kernels.{module}"], function)
        assert isinstance(kernel, Kernel)
        kernel.parameters(codes)


def test_an_unknown_target_is_refused():
    command = [sys.executable, "-m", "helix_plugin_cpu.prepared", "x86-64-v9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "unknown target x86-64-v9; there are x86-64-v3, x86-64-v4, aarch64" in done.stderr


def use_models(**environment):
    command = [sys.executable, str(Path(__file__).with_name("prepared_models.py"))]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_list_names_all_that_models_use():
    missing = set(use_models()["used"]) - set(listed())
    assert not missing, "`python helix_plugin_cpu/tests/prepared_models.py --write` adds them"
