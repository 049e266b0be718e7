"""Whether a driver for WebGPU is installed, found out without loading any: Vulkan's are named by files on Linux."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from helix_core.plugin_system.descriptors import Availability

PLACES = ("/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d")
CACHE = Path("/etc/ld.so.cache")
ADVICE = "install your card's Vulkan driver and libvulkan1; for processors, mesa-vulkan-drivers"


def probe() -> Availability:
    """Available where a driver's library is there; broken where a file names one that is not."""
    if not sys.platform.startswith("linux"):
        return Availability(True, "the system brings a driver along")
    drivers = driver_files()
    if not drivers:
        return Availability(False, f"no Vulkan driver is installed; {ADVICE}")
    if not _known("libvulkan.so.1"):
        return Availability(False, f"the Vulkan loader (libvulkan.so.1) is not installed; {ADVICE}")
    wrong = {path: reason for path in drivers if (reason := fault(path))}
    bad = "; ".join(f"driver {path.name}: {reason}" for path, reason in wrong.items())
    good = [path.stem for path in drivers if path not in wrong]
    if not good:
        return Availability(False, bad, broken=True)
    names = f"drivers: {', '.join(good)}"
    return Availability(True, f"{names}; but {bad}" if bad else names, broken=bool(bad))


def driver_files() -> list[Path]:
    """The manifests that the Vulkan loader reads."""
    named = os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES")
    if named:
        return [Path(part) for part in named.split(os.pathsep) if part]
    return [path for place in PLACES for path in sorted(Path(place).glob("*.json"))]


def fault(path: Path) -> str | None:
    """What is wrong with a driver's manifest, or None."""
    try:
        library = str(json.loads(path.read_text())["ICD"]["library_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the manifest cannot be read ({type(error).__name__})"
    if "/" not in library:
        return None if _known(library) else f"{library} is not among the system's libraries"
    place = Path(library) if library.startswith("/") else path.parent / library
    if not place.is_file():
        return f"{place} does not exist"
    with place.open("rb") as file:
        return None if file.read(4) == b"\x7fELF" else f"{place} is not a library"


def _known(library: str) -> bool:
    """Whether the system's loader finds a library; yes where its list cannot be read."""
    folders = [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f]
    if any((Path(folder) / library).is_file() for folder in folders):
        return True
    try:
        return library.encode() in CACHE.read_bytes()
    except OSError:
        return True
