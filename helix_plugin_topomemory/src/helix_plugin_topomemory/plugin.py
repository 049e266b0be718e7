"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import CommandDescriptor, LayerDescriptor, MemoryDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"


@hookimpl
def helix_commands() -> Sequence[CommandDescriptor]:
    return [
        CommandDescriptor(
            name="meaning",
            target="helix_plugin_topomemory.commands.meaning:command",
            summary="Induce links from raw bytes and report what they are worth.",
        ),
        CommandDescriptor(
            name="motifs",
            target="helix_plugin_topomemory.commands.motifs:command",
            summary="Find runs of bytes that come back more often than chance has it.",
        ),
    ]


@hookimpl
def helix_layers() -> Sequence[LayerDescriptor]:
    return [
        LayerDescriptor(
            name="memory_read",
            target="helix_plugin_topomemory.read:MemoryRead",
            config="helix_plugin_topomemory.read:MemoryReadConfig",
            summary="reads the best of the last steps by similarity and importance (top-k)",
            provides=("recurrent",),
        )
    ]


@hookimpl
def helix_memories() -> Sequence[MemoryDescriptor]:
    return [
        MemoryDescriptor(
            name="topological",
            target="helix_plugin_topomemory.memory:TopologicalMemory",
            config="helix_plugin_topomemory.memory:TopologicalConfig",
            summary="items and U/I/S links ranked by similarity and stability; approximate search, levels, sleep",
        )
    ]
