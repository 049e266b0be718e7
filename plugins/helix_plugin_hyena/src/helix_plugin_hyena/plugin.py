"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import CommandDescriptor, GeneratorDescriptor, LayerDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"


@hookimpl
def helix_layers() -> Sequence[LayerDescriptor]:
    return [
        LayerDescriptor(
            name="hyena",
            target="helix_plugin_hyena.hyena:Hyena",
            config="helix_plugin_hyena.hyena:HyenaConfig",
            summary="gated long convolutions with implicit filters (Poli et al., 2023)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="hyena_recurrent",
            target="helix_plugin_hyena.recurrent:HyenaRecurrent",
            config="helix_plugin_hyena.recurrent:HyenaRecurrentConfig",
            summary="Hyena whose long filters are recurrences of a few modes (Massaroli et al., 2023)",
            provides=("recurrent",),
        ),
    ]


@hookimpl
def helix_commands() -> Sequence[CommandDescriptor]:
    return [
        CommandDescriptor(
            name="distill",
            target="helix_plugin_hyena.commands.distill:command",
            summary="Make recurrences of a Hyena's long filters.",
        ),
        CommandDescriptor(
            name="infill",
            target="helix_plugin_hyena.commands.infill:command",
            summary="Fill in spans of a text with a model that sees both sides.",
        ),
    ]


@hookimpl
def helix_generators() -> Sequence[GeneratorDescriptor]:
    return [
        GeneratorDescriptor(
            name="masked-spans",
            target="helix_plugin_hyena.masked_spans:MaskedSpans",
            config="helix_plugin_hyena.masked_spans:MaskedSpansConfig",
            summary="windows of files in which spans of bytes are masked, to be filled in",
            provides=("tokens",),
        )
    ]
