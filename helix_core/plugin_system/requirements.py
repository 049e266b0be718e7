"""PEP 508 requirements checked against installed metadata, without importing what they name."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement


@functools.lru_cache(maxsize=1024)
def unmet_requirement(text: str) -> str | None:
    """Why a requirement is not met here, or None: "needs torch>=2.6, found 2.1".

    Extras are followed: `helix-plugin-training[plot]` also needs what that asks for under `plot`. An installed
    pre-release satisfies a specifier that its number satisfies.
    """
    import importlib_metadata
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return f"its requirement {text!r} is not valid PEP 508"
    if not applies(requirement):
        return None
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        distribution = importlib_metadata.distribution(requirement.name)
        found = distribution.version
    except importlib_metadata.PackageNotFoundError:
        return f"needs {wanted}, not installed"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"needs {wanted}, found {found}"
    for extra in sorted(requirement.extras):
        for line in distribution.requires or ():
            further = Requirement(line)
            if applies(further, extra) and not applies(further):
                further.marker = None
                if reason := unmet_requirement(str(further)):
                    return f"{reason} (for {requirement.name}[{extra}])"
    return None


def applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether a requirement's marker holds here, with one extra asked for or none."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
