"""Fake installed distributions, so that discovery can be tested without pip or a network."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent


def write_dist(
    folder: Path | str,
    name: str,
    version: str = "1.0",
    *,
    entry_points: Mapping[str, Mapping[str, str]] | None = None,
    modules: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    direct_url: str | None = None,
) -> Path:
    """Write a distribution into `folder` as pip would leave it; returns its `*.dist-info`.

    entry_points  `{group: {name: "module"}}`, such as `{"helix.plugins": {"mine": "mine.plugin"}}`
    modules       source by path, such as `{"mine/plugin.py": "..."}`; common indentation is removed
    requires      PEP 508 lines for Requires-Dist
    metadata      further fields of METADATA
    direct_url    the text of direct_url.json, which pip writes for editable installs

    An earlier version of the distribution in the same folder is replaced, as by a reinstall. Put the folder
    on the path with `on_path`, or read it alone with `discover(version, path=[folder])`.
    """
    folder = Path(folder)
    stem = re.sub(r"[-_.]+", "_", name).lower()
    for old in folder.glob(f"{stem}-*.dist-info"):
        shutil.rmtree(old)
    info = folder / f"{stem}-{version}.dist-info"
    info.mkdir(parents=True)
    fields = [("Metadata-Version", "2.1"), ("Name", name), ("Version", version)]
    fields += [("Requires-Dist", line) for line in requires] + list((metadata or {}).items())
    (info / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in fields), encoding="utf-8")
    sections = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in (entry_points or {}).items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    if direct_url is not None:
        (info / "direct_url.json").write_text(direct_url, encoding="utf-8")
    for path, source in (modules or {}).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source), encoding="utf-8")
    return info


@contextmanager
def on_path(folder: Path | str) -> Iterator[None]:
    """Put `folder` first on sys.path, and forget the modules imported from it afterwards."""
    root = Path(folder).resolve()
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and Path(file).is_relative_to(root):
                del sys.modules[name]
        importlib.invalidate_caches()
