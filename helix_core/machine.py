"""What the machine has to give, so that work too large for it is refused before it begins."""

from __future__ import annotations

import os
from pathlib import Path

from helix_core.errors import NotEnoughMemory

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes of main memory that new arrays may take, swap included and a container's limit respected; None: unknown."""
    meminfo = _table(Path("/proc/meminfo"))
    if "MemAvailable" in meminfo:
        free = 1024 * (meminfo["MemAvailable"] + meminfo.get("SwapFree", 0))
        return min([free, *_left_in_cgroups()])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS says no more than what there is
    except (AttributeError, ValueError, OSError):
        return None


def require_memory(needed: int, available: int | None, what: str, *, hint: str | None = None) -> None:
    """Raise NotEnoughMemory, with both numbers, if `what` needs more bytes than are available; None: unknown."""
    if available is not None and needed > available:
        raise NotEnoughMemory(
            f"{what} needs at least {_shown(needed)} of memory, and {_shown(available)} are available", hint=hint
        )


def _shown(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.3g} TiB" if size < 1e4 else f"{size:.1e} TiB"


def _left_in_cgroups() -> list[int]:
    """What the control groups of this process leave it: version 2 or 1, as a container or the host sees them."""
    left = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cache = _CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        group = root / path.strip("/")
        for folder in {root, group, *group.parents}:
            if folder.is_relative_to(root):
                most, used = _number(folder / limit), _number(folder / usage)
                if most is not None and used is not None:
                    left.append(max(0, most - used + _table(folder / "memory.stat").get(cache, 0)))
    return left


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = [line.replace(":", " ").split() for line in _lines(path)]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None  # "max" is no limit
