"""The commands there are: those of core, from a table, and those of plugins, from their descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helix_core.plugin_system import Component

# Summaries stand here so that `helix --help` imports no command.
BUILT_IN = {
    "plugins": "List the installed plugins and how each fared.",
    "doctor": "Check this machine, the plugins and the backends.",
    "explain": "Say which component or kernel would be used, and why.",
    "describe": "Show a component, its docstring and the schema of its options.",
}


def plugin_commands() -> dict[str, Component]:
    """The commands of plugins by what is typed: the name, or `plugin/name` where that is not unique."""
    from helix_core.plugin_system import components

    commands = components("command")
    names = [*BUILT_IN, *(c.name for c in commands)]
    return {c.name if names.count(c.name) == 1 else c.full_name: c for c in commands}
