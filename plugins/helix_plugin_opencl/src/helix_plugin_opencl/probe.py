"""Whether an OpenCL driver is installed, found out without loading any: from the files that name the drivers."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from helix_core.plugin_system.descriptors import Availability

VENDORS = Path("/etc/OpenCL/vendors")
CACHE = Path("/etc/ld.so.cache")
IMAGES = (b"\x7fELF", b"MZ")
"""How libraries begin; Apple's are not named by files."""


def probe() -> Availability:
    """Available where a driver's library is there; broken where a file names one that is not, or is no library."""
    if not sys.platform.startswith("linux"):
        return Availability(True, "drivers are known to the system")
    drivers = driver_files()
    if not drivers:
        return Availability(
            False, "no OpenCL driver is installed (`pip install pyopencl[pocl]` has one for processors)"
        )
    wrong = {path: reason for path in drivers if (reason := fault(path))}
    bad = "; ".join(f"driver {path.name}: {reason}" for path, reason in wrong.items())
    good = [path.stem for path in drivers if path not in wrong]
    if not good:
        return Availability(False, bad, broken=True)
    names = f"drivers: {', '.join(good)}"
    return Availability(True, f"{names}; but {bad}" if bad else names, broken=bool(bad))


def driver_files() -> list[Path]:
    """The .icd files that the loader reads, and those that the package pyopencl brings along."""
    named = os.environ.get("OCL_ICD_VENDORS") or os.environ.get("OPENCL_VENDOR_PATH")
    place = Path(named) if named else VENDORS
    places = [place]
    spec = find_spec("pyopencl")
    if spec is not None and spec.origin:
        places.append(Path(spec.origin).parent / ".libs")
    found: list[Path] = []
    for place in places:
        found += [place] if place.suffix == ".icd" and place.is_file() else sorted(place.glob("*.icd"))
    return found


def fault(path: Path) -> str | None:
    """What is wrong with a driver's file, or None."""
    try:
        library = path.read_text().strip().splitlines()[0].strip()
    except (OSError, UnicodeDecodeError, IndexError):
        return "the file names no library"
    for candidate in (Path(library), path.parent / library):
        if (candidate.is_absolute() or candidate.parent == path.parent) and candidate.is_file():
            with candidate.open("rb") as file:
                return None if file.read(4).startswith(IMAGES) else f"{candidate} is not a library"
    if Path(library).is_absolute():
        return f"{library} does not exist"
    for folder in filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        if (Path(folder) / library).is_file():
            return None
    try:
        known = library.encode() in CACHE.read_bytes()
    except OSError:
        return None  # no cache to ask: the loader will tell
    return None if known else f"{library} is not among the system's libraries"
