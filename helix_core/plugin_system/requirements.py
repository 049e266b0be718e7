"""PEP 508 requirements checked against installed metadata, without importing what they name."""

from __future__ import annotations

import functools


@functools.lru_cache(maxsize=1024)
def unmet_requirement(text: str) -> str | None:
    """Why a requirement is not met here, or None: "needs torch>=2.6, found 2.1"."""
    import importlib_metadata
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return f"its requirement {text!r} is not valid PEP 508"
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        found = importlib_metadata.version(requirement.name)
    except importlib_metadata.PackageNotFoundError:
        return f"needs {wanted}, not installed"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"needs {wanted}, found {found}"
    return None
