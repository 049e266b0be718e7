"""Drivers that are there, absent or broken: reported, never fatal, never silent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from helix_plugin_opencl import probe as probing

ASK = """
import json
from helix_core.cli.doctor import examine
from helix_core import create
report = examine()
found = [b for b in report["backends"] if b["name"] == "opencl/opencl"][0]
print(json.dumps({**found, "problems": report["problems"], "auto": create("backend").name}))
"""


def examined(**environment):
    """What `helix doctor` finds in a process with these variables."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def alone(monkeypatch):
    """No drivers but those of the test."""
    monkeypatch.setattr(probing, "find_spec", lambda name: None)


def driver(folder, name, text):
    path = folder / f"{name}.icd"
    path.write_text(text)
    return path


def test_a_driver_that_does_not_exist_is_reported_and_the_rest_works(tmp_path):
    driver(tmp_path, "gone", "/no/such/libOpenCLdriver.so\n")
    report = examined(OCL_ICD_VENDORS=str(tmp_path))
    assert report["broken"]
    assert "gone.icd: /no/such/libOpenCLdriver.so does not exist" in report["reason"]
    assert any("opencl/opencl is broken" in problem for problem in report["problems"])
    assert report["auto"] != "opencl", "another backend still serves"


STUB = """
int clIcdGetPlatformIDsKHR(unsigned room, void **platforms, unsigned *count) { return -1001; }
void *clGetExtensionFunctionAddress(const char *name) { return clIcdGetPlatformIDsKHR; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_driver_that_answers_with_errors_hides_no_other(tmp_path):
    """A library that loads and has no platform, as a card's driver without its kernel module."""
    (tmp_path / "stub.c").write_text(STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "stub.so", "stub.c"], cwd=tmp_path, check=True)
    driver(tmp_path, "stub", f"{tmp_path / 'stub.so'}\n")
    report = examined(OCL_ICD_VENDORS=str(tmp_path))
    assert "stub" in report["reason"]
    assert report["facts"]["device_name"]
    assert report["auto"] != "opencl"


def test_no_library_is_told_from_a_library(tmp_path, alone, monkeypatch):
    monkeypatch.setenv("OCL_ICD_VENDORS", str(tmp_path))
    text = tmp_path / "text.so"
    text.write_text("this is no library")
    driver(tmp_path, "text", f"{text}\n")
    answer = probing.probe()
    assert not answer.available
    assert answer.broken
    assert "is not a library" in answer.reason
    library = tmp_path / "real.so"
    library.write_bytes(b"\x7fELF and so on")
    driver(tmp_path, "real", str(library))
    answer = probing.probe()
    assert answer.available
    assert answer.broken
    assert answer.reason.startswith("drivers: real; but driver text.icd")


def test_no_driver_at_all_says_what_to_install(tmp_path, alone, monkeypatch):
    monkeypatch.setenv("OCL_ICD_VENDORS", str(tmp_path))
    answer = probing.probe()
    assert not answer.available
    assert not answer.broken
    assert "pyopencl[pocl]" in answer.reason


def test_a_device_that_is_not_there_is_an_error_with_a_list(monkeypatch):
    from helix_core import create
    from helix_core.errors import ComponentUnavailable

    monkeypatch.setenv("HELIX_OPENCL_DEVICE", "no such device")
    with pytest.raises(ComponentUnavailable, match="no OpenCL device fits"):
        create("backend", "opencl")
    monkeypatch.setenv("HELIX_OPENCL_DEVICE", "0")
    assert create("backend", "opencl").describe()["device_name"]
