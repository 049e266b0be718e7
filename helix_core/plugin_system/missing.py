"""The error for a component that is not there: mistyped, not installed, or in a plugin that does not work."""

from __future__ import annotations

from helix_core.errors import ComponentNotFound, ComponentUnavailable, HelixError
from helix_core.plugin_system.catalogue import catalogued, distribution_of
from helix_core.plugin_system.discovery import canonical
from helix_core.plugin_system.registry import Registry
from helix_core.suggest import did_you_mean


def not_found(registry: Registry, kind: str, name: str | None = None, note: str = "") -> HelixError:
    """The error to raise when no usable plugin provides `name`, or any component of `kind`."""
    idle = [p for p in registry.plugins() if p.status != "ok"]
    causes = "".join(f"\n  plugin {p.name} {p.verdict}" for p in idle)
    if name is None:
        return ComponentNotFound(f"no {kind} is installed{causes}", hint="`helix plugins` lists what is installed")
    distribution = distribution_of(kind, name)
    if distribution is not None:
        installed = [p for p in registry.plugins() if canonical(p.distribution) == distribution]
        for plugin in installed:
            if plugin.status != "ok":
                # It is there: telling the user to install it would send them in a circle.
                return ComponentUnavailable(
                    f"{kind} {name!r}{note} belongs to plugin {plugin.name!r}, which is installed but "
                    f"{plugin.verdict.removeprefix('is ')}"
                )
        if not installed:
            text = f"no {kind} named {name!r} is installed{note}"
            return ComponentNotFound(text, hint=f"Not installed: pip install {distribution}")
    components = registry.components(kind)
    names = sorted({c.name for c in components})
    known = [*names, *catalogued(kind), *(c.full_name for c in components)]
    text = f"no {kind} named {name!r} is installed{note}{did_you_mean(name, known)}{causes}"
    return ComponentNotFound(text, hint=f"installed: {', '.join(names) or 'none'}")
