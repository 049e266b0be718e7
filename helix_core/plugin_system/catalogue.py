"""The first-party components of this version and the distributions that have them.

Only this list makes an error say `pip install ...`: a name somebody mistyped must never become a package to install.
"""

from __future__ import annotations

_CATALOGUE: dict[tuple[str, str], str] = {
    ("backend", "cpu"): "helix-plugin-cpu",
    ("layer", "mamba"): "helix-plugin-ssm",
    ("layer", "s4d"): "helix-plugin-ssm",
}


def distribution_of(kind: str, name: str) -> str | None:
    """The first-party distribution that provides a component, or None."""
    return _CATALOGUE.get((kind, name.rpartition("/")[2]))


def catalogued(kind: str) -> list[str]:
    """The names of first-party components of a kind."""
    return [name for known, name in _CATALOGUE if known == kind]
