"""What the probe says of drivers that are there, absent or broken."""

import ctypes
import json
import os
import shutil
import subprocess
import sys

import pytest

from helix_core import Availability, create, explain
from helix_core.errors import HelixError
from helix_plugin_cuda.kernels._launch import INTERPRETED
from helix_plugin_cuda.probe import Build, examine, interpreting, torch_build

CUDA, ROCM, PLAIN = Build("2.13.0", "13.0", None), Build("2.13.0", None, "7.1"), Build("2.13.0", None, None)


class Driver:
    """A stand-in for NVML: what each call answers."""

    def __init__(self, cards=1, init=0, count=0):
        self.cards, self.init, self.count, self.open = cards, init, count, 0
        self.nvmlErrorString = lambda status: b"Driver/library version mismatch"

    def nvmlInit_v2(self):
        self.open += self.init == 0
        return self.init

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetCount_v2(self, found):
        found._obj.value = self.cards
        return self.count

    def nvmlDeviceGetHandleByIndex_v2(self, index, card):
        return 0

    def nvmlDeviceGetName(self, card, name, size):
        name.value = b"NVIDIA H200"
        return 0


class Cuda:
    """A stand-in for libcuda: its version, or the error that it answers."""

    def __init__(self, version=13000, error=0):
        self.version, self.error = version, error

    def cuDriverGetVersion(self, found):
        found._obj.value = self.version
        return self.error


def absent(name):
    raise OSError(f"{name}: cannot open shared object file: No such file or directory")


def loader(nvml, cuda=None):
    return lambda name: (cuda or Cuda()) if "cuda" in name else nvml


def test_a_card_that_works(tmp_path):
    driver = Driver()
    assert examine(CUDA, loader(driver), tmp_path, {}) == Availability(True, "NVIDIA H200, CUDA 13.0")
    assert driver.open == 0
    assert examine(CUDA, loader(Driver(cards=8)), tmp_path, {}).reason == "8 x NVIDIA H200, CUDA 13.0"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_cards(tmp_path, hidden):
    found = examine(CUDA, loader(Driver()), tmp_path, {"CUDA_VISIBLE_DEVICES": hidden})
    assert (found.available, found.broken) == (False, False)
    assert "hidden by CUDA_VISIBLE_DEVICES" in found.reason


def test_no_driver(tmp_path):
    assert examine(CUDA, absent, tmp_path, {}) == Availability(False, "no NVIDIA driver (libcuda.so.1)")


def test_a_driver_without_a_card(tmp_path):
    found = examine(CUDA, loader(Driver(cards=0)), tmp_path, {})
    assert found == Availability(False, "an NVIDIA driver, but no card")


def test_a_driver_that_does_not_work_is_broken_and_says_why(tmp_path):
    found = examine(CUDA, loader(Driver(init=18)), tmp_path, {})
    assert found.broken
    assert "Driver/library version mismatch (NVML error 18)" in found.reason
    assert examine(CUDA, loader(Driver(count=999)), tmp_path, {}).broken


def test_a_library_that_answers_with_errors_is_broken(tmp_path):
    found = examine(CUDA, loader(Driver(), Cuda(error=34)), tmp_path, {})
    assert found.broken
    assert "CUDA error 34, which is the answer of the CUDA toolkit's stub" in found.reason


def test_a_driver_older_than_torchs_cuda_is_broken(tmp_path):
    found = examine(CUDA, loader(Driver(), Cuda(version=12040)), tmp_path, {})
    assert found.broken
    assert "is for CUDA 12.4 and torch for CUDA 13.0: update the driver, or install torch for CUDA 12" in found.reason
    assert examine(Build("2.6", "12.6", None), loader(Driver(), Cuda(version=12040)), tmp_path, {}).available
    assert "there is a card" in examine(PLAIN, loader(Driver(), Cuda(version=12040)), tmp_path, {}).reason


BROKEN_LIBRARY = """
int cuDriverGetVersion(int *version) { return 999; }
int nvmlInit_v2(void) { return 0; }
"""
DOCTOR = """
import json, warnings
from helix_core import create
from helix_core.cli.doctor import examine
from helix_plugin_cuda import probe
probe.torch_build = lambda: probe.Build("2.13.0", "13.0", None)
found = next(b for b in examine()["backends"] if b["name"] == "cuda/cuda")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    auto = create("backend").name
print(json.dumps({**found, "auto": auto, "warnings": [str(w.message) for w in caught]}))
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="the loader's path is Linux's")
def test_a_broken_driver_is_reported_and_another_backend_serves(tmp_path):
    """Real libraries, found by the dynamic loader."""
    (tmp_path / "broken.c").write_text(BROKEN_LIBRARY)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        subprocess.run(["cc", "-shared", "-fPIC", "-o", name, "broken.c"], cwd=tmp_path, check=True)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DOCTOR],
        env=environment | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["available"], report["broken"]) == (False, True)
    assert "does not work (CUDA error 999)" in report["reason"]
    assert report["auto"] != "cuda"
    assert any("backend cuda/cuda is broken" in text for text in report["warnings"])


def test_a_kernel_module_without_its_library_is_broken(tmp_path):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: 580.1")
    assert examine(CUDA, absent, tmp_path, {}).broken


def test_a_library_that_is_none_is_broken(tmp_path):
    """The dynamic loader itself, on a file that is no library."""
    (tmp_path / "libcuda.so.1").write_text("not a library")
    found = examine(CUDA, lambda name: ctypes.CDLL(str(tmp_path / name)), tmp_path, {})
    assert found.broken
    assert "does not load" in found.reason


def test_a_build_for_processors(tmp_path):
    found = examine(PLAIN, loader(Driver()), tmp_path, {})
    assert (found.available, found.broken) == (False, False)
    assert "NVIDIA H200" in found.reason
    assert "install a CUDA build" in found.reason
    assert examine(Build(None, None, None), absent, tmp_path, {}).reason == "torch is not installed"


def test_rocm_is_told_apart(tmp_path):
    assert "no AMD driver" in examine(ROCM, loader(Driver()), tmp_path, {}).reason
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    for node, number in (("0", "0"), ("1", "4321"), ("2", "9876")):
        folder = tmp_path / "sys/class/kfd/kfd/topology/nodes" / node
        folder.mkdir(parents=True)
        (folder / "gpu_id").write_text(f"{number}\n")
    assert examine(ROCM, absent, tmp_path, {}) == Availability(True, "2 AMD cards, ROCm 7.1")
    assert "hidden" in examine(ROCM, absent, tmp_path, {"HIP_VISIBLE_DEVICES": ""}).reason


def test_this_torch_has_a_version():
    build = torch_build()
    assert build.torch
    assert not (build.cuda and build.hip)


@pytest.mark.parametrize(("value", "answer"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_when_triton_interprets(value, answer):
    assert interpreting({"TRITON_INTERPRET": value}) is answer
    assert not interpreting({})


needs_no_card = pytest.mark.skipif(not INTERPRETED, reason="a card is here")


@needs_no_card
def test_the_interpreter_is_shown_and_never_chosen():
    selection = explain("backend")
    (candidate,) = [c for c in selection.candidates if c.component.full_name == "cuda/cuda"]
    assert not candidate.accepted
    assert "only when it is asked for by name" in candidate.reason
    assert selection.chosen.full_name != "cuda/cuda"
    backend = create("backend", "cuda")
    assert backend.describe()["interpreter"] is True
    assert "interpreter" in backend.bind().trail["rms_norm"].reason


@needs_no_card
def test_without_a_card_it_is_refused_by_name():
    code = "import helix_core; helix_core.create('backend', 'cuda')"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be used" in done.stderr


@needs_no_card
def test_torchs_own_refusal_is_passed_on(monkeypatch):
    from helix_plugin_cuda.backend import CudaBackend

    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(HelixError, match="torch cannot use the graphics card: Torch not compiled"):
        CudaBackend()
