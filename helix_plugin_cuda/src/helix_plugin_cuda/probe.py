"""Whether this machine has a graphics card that the installed torch can use, asked without importing torch.

NVIDIA cards are counted through NVML, never through `cuInit`: a process that has initialised CUDA must not fork. What
is there but does not work (a library of another driver version, a driver older than torch's CUDA, missing permissions)
is reported as broken.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_core import Availability

INTERPRET = "TRITON_INTERPRET"
STUB = 34
"""CUDA_ERROR_STUB_LIBRARY: a libcuda to link with, found before the driver's own."""


@dataclass(frozen=True)
class Build:
    """What the installed torch was built for: versions, or None."""

    torch: str | None
    cuda: str | None
    hip: str | None


def probe() -> Availability:
    """The answer for this machine."""
    if interpreting(os.environ):
        if importlib.util.find_spec("triton") is None:
            return Availability(False, f"{INTERPRET} is set, and triton is not installed")
        return Availability(True, "Triton's interpreter on tensors in main memory, for tests", by_name=True)
    return examine(torch_build(), ctypes.CDLL, Path("/"), os.environ)


def interpreting(environ: Mapping[str, str]) -> bool:
    """Whether Triton would interpret kernels instead of compiling them."""
    return environ.get(INTERPRET, "").lower() in ("1", "true", "on", "yes", "y")


def torch_build() -> Build:
    """Read from torch's own version file."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return Build(None, None, None)
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")

    def value(name: str) -> str | None:
        found = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.M)
        return found[1] if found else None

    return Build(value("__version__"), value("cuda"), value("hip"))


def examine(build: Build, load: Callable[[str], Any], root: Path, environ: Mapping[str, str]) -> Availability:
    """The answer for a build of torch, a loader of shared libraries, a file system and an environment."""
    if build.torch is None:
        return Availability(False, "torch is not installed")
    if build.hip:
        return _rocm(build, root, environ)
    cards = _nvidia(build, load, root)
    if build.cuda is None:
        found = "" if not cards.available else f", although there is a card ({cards.reason}): install a CUDA build"
        return Availability(False, f"torch {build.torch} is a build for processors{found}")
    if cards.available and environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return Availability(False, f"{cards.reason}, hidden by CUDA_VISIBLE_DEVICES")
    if cards.available:
        return Availability(True, f"{cards.reason}, CUDA {build.cuda}")
    return cards


def _nvidia(build: Build, load: Callable[[str], Any], root: Path) -> Availability:
    """The driver's library and the cards it knows."""
    windows = os.name == "nt"
    kernel_module = (root / "proc/driver/nvidia/version").exists()
    try:
        cuda = load("nvcuda.dll" if windows else "libcuda.so.1")
    except OSError as error:
        if "cannot open shared object file" not in str(error) and not windows:
            return Availability(False, f"the NVIDIA driver's library does not load: {error}", broken=True)
        if kernel_module:
            return Availability(False, "the NVIDIA driver is loaded, but its libcuda.so.1 is not there", broken=True)
        return Availability(False, "no NVIDIA driver (libcuda.so.1)")
    if fault := _fault(cuda, build.cuda):
        return Availability(False, fault, broken=True)
    try:
        nvml = load("nvml.dll" if windows else "libnvidia-ml.so.1")
    except OSError as error:
        nodes = sorted(node.name for node in root.glob("dev/nvidia[0-9]*"))
        if nodes:
            return Availability(True, f"NVIDIA card ({', '.join(nodes)})")
        return Availability(False, f"an NVIDIA driver, but no card, and NVML does not load: {error}", broken=True)
    return _count(nvml)


def _fault(cuda: Any, built: str | None) -> str | None:
    """What is wrong with the driver's library, or None. Asking for its version initialises nothing."""
    found = ctypes.c_int(0)
    if status := cuda.cuDriverGetVersion(ctypes.byref(found)):
        stub = ", which is the answer of the CUDA toolkit's stub" if status == STUB else ""
        return f"the NVIDIA driver's library does not work (CUDA error {status}{stub})"
    major, minor = found.value // 1000, found.value % 1000 // 10
    if built and major < int(built.split(".")[0]):
        advice = f"update the driver, or install torch for CUDA {major}"
        return f"the NVIDIA driver is for CUDA {major}.{minor} and torch for CUDA {built}: {advice}"
    return None


def _count(nvml: Any) -> Availability:
    """NVML's answer; its error text where it has one."""
    status = nvml.nvmlInit_v2()
    if status:
        nvml.nvmlErrorString.restype = ctypes.c_char_p
        text = nvml.nvmlErrorString(status)
        why = text.decode(errors="replace") if isinstance(text, bytes) else "unknown error"
        return Availability(False, f"the NVIDIA driver does not work: {why} (NVML error {status})", broken=True)
    try:
        count = ctypes.c_uint(0)
        status = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        if status or not count.value:
            reason = f"counting cards failed (NVML error {status})" if status else "an NVIDIA driver, but no card"
            return Availability(False, reason, broken=bool(status))
        card, name = ctypes.c_void_p(), ctypes.create_string_buffer(96)
        known = not nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(card))
        known = known and not nvml.nvmlDeviceGetName(card, name, ctypes.c_uint(96))
        label = name.value.decode(errors="replace") if known else "NVIDIA card"
        return Availability(True, f"{count.value} x {label}" if count.value > 1 else label)
    finally:
        nvml.nvmlShutdown()


def _rocm(build: Build, root: Path, environ: Mapping[str, str]) -> Availability:
    """The cards that the kernel's compute driver lists."""
    device = root / "dev/kfd"
    if not device.exists():
        return Availability(False, f"torch is built for ROCm {build.hip}, and there is no AMD driver (/dev/kfd)")
    if not os.access(device, os.R_OK | os.W_OK):
        groups = "the groups `render` and `video` may use it"
        return Availability(False, f"an AMD driver, but no permission to open /dev/kfd: {groups}", broken=True)
    nodes = root.glob("sys/class/kfd/kfd/topology/nodes/*/gpu_id")
    count = sum(node.read_text().strip() not in ("", "0") for node in nodes)
    if not count:
        return Availability(False, "an AMD driver, but no card")
    if environ.get("HIP_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return Availability(False, "an AMD card, hidden by HIP_VISIBLE_DEVICES")
    return Availability(True, f"{count} AMD card{'s' if count > 1 else ''}, ROCm {build.hip}")
