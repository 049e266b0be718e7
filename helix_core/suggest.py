"""Nearest matches for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name most like `name`, if one is close: at a ratio of matching letters above `cutoff`."""
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message: `; did you mean 'x'?`, or nothing."""
    match = nearest(name, names)
    return f"; did you mean {match!r}?" if match else ""
