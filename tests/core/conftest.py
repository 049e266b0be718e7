"""A folder of fake installed plugins, and registries that see these alone."""

import sys
import types
from textwrap import dedent

import pytest

import helix_core
from helix_core.plugin_system import Registry
from helix_core.plugin_system.discovery import GROUP, discover
from helix_core.settings import Settings
from helix_core.testing.dists import on_path, write_dist

IMPORTS = """\
import sys
from helix_core import Availability, hookimpl
from helix_core.descriptors import *
"""


class Site:
    """Where fake plugins are installed; each module is named `fake_NAME`."""

    def __init__(self, folder):
        self.folder = folder

    def plugin(self, name, source="", *, dist=None, version="1.0", requires=(), folder=None, **modules):
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

    def layers(self, name, *descriptors, kind="Layer", hook="helix_layers", extra="", **options):
        """Install a plugin that returns descriptors, each given as the text of its keyword arguments."""
        calls = ", ".join(f"{kind}Descriptor(target='fake_target:build', summary='', {d})" for d in descriptors)
        source = f"@hookimpl\ndef {hook}():\n    return [{calls}]\n" + dedent(extra)
        return self.plugin(name, source, **options)

    def backends(self, name, *descriptors, **options):
        """The same for backends."""
        return self.layers(name, *descriptors, kind="Backend", hook="helix_backends", **options)

    def registry(self, **settings):
        """A registry of the plugins here and an empty core, under the given settings."""
        found = discover(helix_core.__version__, path=[str(self.folder)])
        return Registry(Settings(**settings), builtin=types.ModuleType("empty_core"), found=found)

    def imported(self, name):
        """Whether a plugin's module has been imported."""
        return f"fake_{name}" in sys.modules


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    with on_path(folder):
        yield Site(folder)


@pytest.fixture
def status():
    """The status and reason of each plugin of a registry but core."""
    return lambda registry: {p.name: (p.status, p.reason) for p in registry.plugins() if p.name != "core"}
