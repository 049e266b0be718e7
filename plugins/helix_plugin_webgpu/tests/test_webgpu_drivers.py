"""Drivers that are there, absent or broken, found out from their manifests."""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import subprocess
import sys

import pytest

from helix_plugin_webgpu import probe as probing
from helix_plugin_webgpu.dialect import FOUR, expanded

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="manifests are Linux's")


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """Write a driver's manifest, the only one there is."""

    def write(text):
        path = tmp_path / "driver.json"
        path.write_text(text)
        monkeypatch.setenv("VK_DRIVER_FILES", str(path))
        monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
        monkeypatch.setattr(probing, "CACHE", tmp_path / "ld.so.cache")
        (tmp_path / "ld.so.cache").write_bytes(b"libvulkan.so.1")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no JSON", "cannot be read"),
        (json.dumps({"ICD": {}}), "cannot be read"),
        (json.dumps({"ICD": {"library_path": "/no/such/driver.so"}}), "does not exist"),
        (json.dumps({"ICD": {"library_path": "driver.json"}}), "not among the system's libraries"),
        (json.dumps({"ICD": {"library_path": "./driver.json"}}), "is not a library"),
    ],
)
def test_a_broken_driver_is_reported(manifest, text, reason):
    manifest(text)
    answer = probing.probe()
    assert not answer.available
    assert answer.broken
    assert reason in answer.reason


STUB = """
int vk_icdNegotiateLoaderICDInterfaceVersion(unsigned *version) { return -9; }
void *vk_icdGetInstanceProcAddr(void *instance, const char *name) { return 0; }
"""
DOCTOR = """
import ctypes.util
import json
from helix_core import create
from helix_core.cli.doctor import examine
report = examine()
found = next(b for b in report["backends"] if b["name"] == "webgpu/webgpu")
print(json.dumps({**found, "problems": report["problems"], "auto": create("backend").name}))
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.skipif(ctypes.util.find_library("vulkan") is None, reason="the Vulkan loader is not installed")
def test_a_driver_that_answers_with_errors_is_reported_and_another_backend_serves(tmp_path):
    (tmp_path / "stub.c").write_text(STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "stub.so", "stub.c"], cwd=tmp_path, check=True)
    driver = {"file_format_version": "1.0.0", "ICD": {"library_path": "./stub.so", "api_version": "1.3.0"}}
    (tmp_path / "stub.json").write_text(json.dumps(driver))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DOCTOR],
        env={**os.environ, "VK_DRIVER_FILES": str(tmp_path / "stub.json")},
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["broken"]
    assert any("webgpu/webgpu is broken" in problem for problem in report["problems"])
    assert report["auto"] != "webgpu"


def test_a_driver_is_found(manifest, tmp_path):
    (tmp_path / "driver.so").write_bytes(b"\x7fELF and so on")
    manifest(json.dumps({"ICD": {"library_path": "./driver.so"}}))
    assert probing.probe().available


def test_no_driver_says_what_to_install(monkeypatch):
    monkeypatch.setenv("VK_DRIVER_FILES", "")
    monkeypatch.setattr(probing, "PLACES", ())
    answer = probing.probe()
    assert (answer.available, answer.broken) == (False, False)
    assert "mesa-vulkan-drivers" in answer.reason


def test_macros_are_expanded_inside_out():
    text = "STOREV(y, at, exp_v_(LOADV(x, at + f(1, 2)) * splat_(s[0])));"
    assert expanded(text) == "y[at] = exp_(x[at + f(1, 2)] * (s[0]));"


def test_numbers_of_buffers_that_hold_vectors_are_parts_of_them():
    text = "STOREV(y, at, LOADV(x, at) * splat_(x[at + s[1]]));"
    expected = "y[(at) >> 2u] = x[(at) >> 2u] * vec4<f32>(x[(at + s[1]) >> 2u][(at + s[1]) & 3]);"
    assert expanded(text, FOUR, frozenset("xy")) == expected
