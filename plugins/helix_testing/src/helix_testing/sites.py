"""A folder of fake installed plugins, and registries that see these alone."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from helix_core.plugin_system import Registry
from helix_core.plugin_system.discovery import GROUP, discover
from helix_core.plugin_system.settings import Settings
from helix_core.version import __version__
from helix_testing.dists import on_path, write_dist

IMPORTS = """\
import sys
from helix_core import Availability, hookimpl
from helix_core.plugin_system.descriptors import *
"""


class Site:
    """Where fake plugins are installed; each module is named `fake_NAME`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plugin(
        self,
        name: str,
        source: str = "",
        *,
        dist: str | None = None,
        version: str = "1.0",
        requires: Sequence[str] = (),
        folder: Path | None = None,
        **modules: str,
    ) -> Path:
        """Install a plugin whose module has `source`; keyword arguments are the sources of others."""
        module = f"fake_{name.replace('-', '_')}"
        sources = {f"{other}.py": text for other, text in modules.items()}
        return write_dist(
            folder or self.folder,
            dist or f"helix-plugin-{name}",
            version,
            entry_points={GROUP: {name: module}},
            modules={f"{module}.py": IMPORTS + dedent(source), **sources},
            requires=requires,
        )

    def layers(
        self,
        name: str,
        *descriptors: str,
        kind: str = "Layer",
        hook: str = "helix_layers",
        extra: str = "",
        **options: Any,
    ) -> Path:
        """Install a plugin that returns descriptors, each given as the text of its keyword arguments."""
        calls = ", ".join(f"{kind}Descriptor(target='fake_target:build', summary='', {d})" for d in descriptors)
        source = f"@hookimpl\ndef {hook}():\n    return [{calls}]\n" + dedent(extra)
        return self.plugin(name, source, **options)

    def backends(self, name: str, *descriptors: str, **options: Any) -> Path:
        """The same for backends."""
        return self.layers(name, *descriptors, kind="Backend", hook="helix_backends", **options)

    def registry(self, **settings: Any) -> Registry:
        """A registry of the plugins here and an empty core, under the given settings."""
        found = discover(__version__, path=[str(self.folder)])
        return Registry(Settings(**settings), builtin=types.ModuleType("empty_core"), found=found)

    def imported(self, name: str) -> bool:
        """Whether a plugin's module has been imported."""
        return f"fake_{name}" in sys.modules


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A folder of fake plugins, on the path during a test."""
    folder = tmp_path / "site"
    folder.mkdir()
    with on_path(folder):
        yield Site(folder)


@pytest.fixture
def status() -> Callable[[Registry], dict[str, tuple[str, str]]]:
    """The status and reason of each plugin of a registry but core."""
    return lambda registry: {p.name: (p.status, p.reason) for p in registry.plugins() if p.name != "core"}
