"""Finding plugins: entry points and their distributions, read from metadata without importing anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

GROUP = "helix.plugins"


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


def discover(core_version: str) -> list[Found]:
    """Every plugin announced in the group `helix.plugins`, sorted by name and distribution.

    A distribution that stands twice on sys.path counts once, as Python would import it. A second distribution that
    announces a taken plugin name is refused, as is one whose requirements are not met.
    """
    import importlib_metadata

    found: list[Found] = []
    seen: set[str] = set()
    for distribution in importlib_metadata.distributions():
        entry_points = [e for e in distribution.entry_points if e.group == GROUP]
        if not entry_points:
            continue
        name = distribution.metadata["Name"]
        if name in seen:
            continue
        seen.add(name)
        refusal = _refusal(distribution, core_version)
        for entry_point in entry_points:
            found.append(
                Found(
                    name=entry_point.name,
                    module=entry_point.value,
                    distribution=name,
                    version=distribution.version,
                    editable=_editable(distribution),
                    entry_point=entry_point,
                    refusal=refusal,
                )
            )
    return _refuse_taken_names(sorted(found, key=lambda f: (f.name, f.distribution)))


def _refuse_taken_names(found: list[Found]) -> list[Found]:
    import dataclasses

    owners: dict[str, str] = {"core": "helix-core"}
    result = []
    for one in found:
        owner = owners.setdefault(one.name, one.distribution)
        if owner != one.distribution:
            text = f"plugin name {one.name!r} is taken by distribution {owner}; uninstall one of the two"
            one = dataclasses.replace(one, refusal=text)
        result.append(one)
    return result


def _refusal(distribution: Any, core_version: str) -> str | None:
    """Why a distribution's requirements rule it out; the one on helix-core comes first."""
    from packaging.requirements import InvalidRequirement, Requirement

    from helix_core.plugin_system.requirements import unmet_requirement

    reasons = []
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name.lower().replace("_", "-") == "helix-core":
            if not requirement.specifier.contains(core_version, prereleases=True):
                return f"is for helix-core{requirement.specifier}, this is {core_version}"
        elif reason := unmet_requirement(text):
            reasons.append(reason)
    return "; ".join(reasons) or None


def _editable(distribution: Any) -> str | None:
    text = distribution.read_text("direct_url.json")
    if not text:
        return None
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return None
    url = str(data.get("url", ""))
    return url.removeprefix("file://") if data.get("dir_info", {}).get("editable") else None
