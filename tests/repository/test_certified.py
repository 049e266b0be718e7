"""Every component of the first-party plugins is certified by the kit of its kind."""

import re
from pathlib import Path

import pytest

from helix_core.plugin_system import components

ROOT = Path(__file__).parents[2]
TESTS = [p for pattern in ("helix_plugin_*/tests", "plugins/*/tests") for p in ROOT.glob(f"{pattern}/test_*.py")]


@pytest.mark.parametrize(
    ("kind", "field"),
    [("command", "command"), ("lr_schedule", "schedule"), ("memory", "memory"), ("optimizer", "optimizer")],
)
def test_every_component_has_a_class_on_its_kit(kind, field):
    """A class on the kit names what it certifies, on a line of its own."""
    line = re.compile(rf'^    {field}(?:: \S+)? = "(?:[\w-]+/)?([\w-]+)"$', re.M)
    certified = {name for path in TESTS for name in line.findall(path.read_text())}
    named = {c.name for c in components(kind)}
    assert named, f"no {kind} is installed"
    assert named <= certified, f"no test class has {field} = ..."
