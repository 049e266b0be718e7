"""Plugins: found without importing, loaded in isolation, chosen with reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_core.plugin_system.creation import check, config_model, create, create_target, validate_config
from helix_core.plugin_system.probing import SLOW_PROBE_SECONDS, probe
from helix_core.plugin_system.registry import (
    Component,
    PluginInfo,
    Registry,
    get_registry,
    reload,
    use_registry,
)
from helix_core.plugin_system.selection import Candidate, HelixWarning, Selection, explain, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_core.plugin_system.descriptors import KernelDescriptor


def components(kind: str | None = None) -> tuple[Component, ...]:
    """The components of all plugins that work, of one kind or of all.

    >>> from helix_core import components
    >>> [c.full_name for c in components("backend") if c.plugin == "core"]
    ['core/reference']
    """
    return get_registry().components(kind)


def plugins() -> tuple[PluginInfo, ...]:
    """Every plugin found, with how it fared.

    >>> from helix_core import plugins
    >>> [p.status for p in plugins() if p.name == "core"]
    ['ok']
    """
    return get_registry().plugins()


def kernel_descriptors() -> list[tuple[str, KernelDescriptor]]:
    """Every kernel with the name of its plugin, as the op table wants them."""
    from helix_core.plugin_system.descriptors import KernelDescriptor

    return [(c.plugin, c.descriptor) for c in components("kernel") if isinstance(c.descriptor, KernelDescriptor)]


def kernel_pins() -> Mapping[str, str]:
    """The user's kernel pins by op."""
    return get_registry().settings.kernels


__all__ = [
    "SLOW_PROBE_SECONDS",
    "Candidate",
    "Component",
    "HelixWarning",
    "PluginInfo",
    "Registry",
    "Selection",
    "check",
    "components",
    "config_model",
    "create",
    "create_target",
    "explain",
    "get_registry",
    "kernel_descriptors",
    "kernel_pins",
    "plugins",
    "probe",
    "reload",
    "select",
    "use_registry",
    "validate_config",
]
