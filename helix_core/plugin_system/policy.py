"""The user's allow and deny lists, applied before a plugin is imported."""

from __future__ import annotations

from fnmatch import fnmatchcase

from helix_core.plugin_system.discovery import Found
from helix_core.plugin_system.settings import Settings


def denial(settings: Settings, plugin: Found) -> str | None:
    """Why the user's lists keep a plugin out, or None. Deny wins; an empty allow list allows all."""
    if pattern := _match(plugin, settings.deny):
        return f"matches {pattern!r} in the deny list ({settings.origin('plugins.deny')})"
    if settings.allow and not _match(plugin, settings.allow):
        return f"not in the allow list ({settings.origin('plugins.allow')})"
    return None


def _match(plugin: Found, patterns: tuple[str, ...]) -> str | None:
    names = (plugin.name, plugin.distribution)
    return next((p for p in patterns if any(fnmatchcase(name, p) for name in names)), None)
