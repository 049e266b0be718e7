"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.descriptors import MemoryDescriptor
from helix_core.hookspecs import hookimpl

PLUGIN_API = "1.0"


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
