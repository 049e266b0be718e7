"""Finding plugins: entry points and their distributions, read from metadata without importing anything."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

GROUP = "helix.plugins"
_HEADER = re.compile(rf"^[^\w#]*\[\s*{re.escape(GROUP)}\s*\]", re.M)


@dataclass(frozen=True)
class Found:
    """A plugin that some installed distribution announces.

    name          entry-point name, the plugin's name
    module        the module it names
    distribution  the distribution's name and `version`
    editable      the source folder of an editable install, else None
    entry_point   what stevedore loads
    refusal       why its metadata alone rules it out, or None
    """

    name: str
    module: str
    distribution: str
    version: str
    editable: str | None
    entry_point: Any
    refusal: str | None


def discover(core_version: str, path: Sequence[str] | None = None) -> list[Found]:
    """Every plugin announced in the group `helix.plugins` on `path`, by name and distribution.

    A distribution that stands twice on the path (sys.path) counts once, as Python would import it. One
    whose requirements are not met is refused here, before its module could be imported. Metadata that
    cannot be read warns or refuses; it never hides the other plugins.
    """
    found = [one for distribution in _distributions(path) for one in _announced(distribution, core_version)]
    return sorted(found, key=lambda one: (one.name, one.distribution))


def canonical(name: str) -> str:
    """A distribution name as PEP 503 compares it."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _distributions(path: Sequence[str] | None) -> Iterator[Any]:
    """The distributions with plugins, each name once."""
    import importlib_metadata

    where = {} if path is None else {"path": list(path)}
    seen: set[str] = set()
    for distribution in importlib_metadata.Distribution.discover(**where):
        if not _entry_points(distribution):
            continue
        try:
            name = canonical(distribution.metadata["Name"])
        except Exception:
            yield distribution  # refused with a reason further on
            continue
        if name in seen:
            continue
        seen.add(name)
        # The copy that Python imports is the first on the path, even if that one announces no plugin.
        copies = importlib_metadata.Distribution.discover(name=name, **where)
        yield next((c for c in copies if _text(c, "METADATA") or _text(c, "PKG-INFO")), distribution)


def _entry_points(distribution: Any) -> list[Any]:
    """The plugins a distribution announces; warns if entry_points.txt has the group and nothing can be read of it."""
    text = _text(distribution, "entry_points.txt")
    if GROUP not in text:
        return []
    try:
        found = [e for e in distribution.entry_points if e.group == GROUP]
        problem = "" if found or not _HEADER.search(text) else f"nothing below [{GROUP}] is found"
        if problem and text.startswith("\ufeff"):
            problem = "a byte-order mark hides its first line"
    except Exception as error:
        found, problem = [], str(error)
    if problem:
        where = getattr(distribution, "_path", distribution)
        warning = f"a plugin is left out, its entry_points.txt cannot be read ({problem}): {where}; reinstall it"
        warnings.warn(warning, RuntimeWarning, stacklevel=2)
    return found


def _text(distribution: Any, file: str) -> str:
    """A file of a distribution's metadata, or what can be made out of it where it is not UTF-8; "" if there is none."""
    try:
        return distribution.read_text(file) or ""
    except UnicodeDecodeError as error:
        return error.object.replace(b"\0", b"").decode("latin-1")  # other encodings: without the zeros of UTF-16
    except OSError:
        return ""


def _announced(distribution: Any, core_version: str) -> list[Found]:
    try:
        name, version = distribution.metadata["Name"], distribution.version
        refusal, editable = _refusal(distribution, core_version), _editable(distribution)
    except Exception as error:
        name, version, editable = "unknown", "unknown", None
        refusal = f"its distribution's metadata cannot be read ({type(error).__name__}: {error}); reinstall it"
    return [Found(e.name, e.value, name, version, editable, e, refusal) for e in _entry_points(distribution)]


def _refusal(distribution: Any, core_version: str) -> str | None:
    """Why a distribution's requirements rule it out; the one on helix-core comes first."""
    from packaging.requirements import InvalidRequirement, Requirement

    from helix_core.plugin_system.requirements import applies, unmet_requirement

    reasons = []
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            reasons.append(f"its requirement {text!r} is not valid PEP 508")
            continue
        if not applies(requirement):
            continue
        if canonical(requirement.name) == "helix-core":
            if not requirement.specifier.contains(core_version, prereleases=True):
                return f"is for helix-core{requirement.specifier}, this is helix-core {core_version}"
        elif reason := unmet_requirement(text):
            reasons.append(reason)
    return "; ".join(reasons) or None


def _editable(distribution: Any) -> str | None:
    try:
        data = json.loads(distribution.read_text("direct_url.json") or "{}")
        if not data.get("dir_info", {}).get("editable"):
            return None
        return unquote(urlsplit(data["url"]).path)
    except (ValueError, KeyError, AttributeError):
        return None  # pip alone writes this file; what it is for is display
