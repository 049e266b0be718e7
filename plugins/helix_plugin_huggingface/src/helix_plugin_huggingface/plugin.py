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
            name="import",
            target="helix_plugin_huggingface.commands.import_:command",
            summary="Make a run of a Hugging Face checkpoint.",
        ),
        CommandDescriptor(
            name="export",
            target="helix_plugin_huggingface.commands.export:command",
            summary="Write a run as a Hugging Face checkpoint.",
        ),
    ]
