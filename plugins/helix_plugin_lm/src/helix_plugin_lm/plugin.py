"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import CommandDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"


@hookimpl
def helix_commands() -> Sequence[CommandDescriptor]:
    return [
        CommandDescriptor(
            name="generate",
            target="helix_plugin_lm.commands.generate:command",
            summary="Continue a prompt with a trained run.",
        )
    ]
