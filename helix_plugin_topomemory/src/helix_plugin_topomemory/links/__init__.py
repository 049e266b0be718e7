"""Links between nodes that earn their stability: unstable, intermediate, stable."""

from helix_plugin_topomemory.links.config import LinkConfig, State
from helix_plugin_topomemory.links.graph import LinkGraph, Links

__all__ = ["LinkConfig", "LinkGraph", "Links", "State"]
