"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import CommandDescriptor, GeneratorDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"


@hookimpl
def helix_commands() -> Sequence[CommandDescriptor]:
    return [
        CommandDescriptor(
            name="bench",
            target="helix_plugin_bench.commands.bench:command",
            summary="What layers learn, side by side on tasks of the literature.",
        )
    ]


@hookimpl
def helix_generators() -> Sequence[GeneratorDescriptor]:
    return [
        GeneratorDescriptor(
            name="digits",
            target="helix_plugin_bench.digits:Digits",
            config="helix_plugin_bench.digits:DigitsConfig",
            summary="handwritten digits read pixel by pixel (scikit-learn's 8x8 digits)",
            provides=("tokens",),
        )
    ]
