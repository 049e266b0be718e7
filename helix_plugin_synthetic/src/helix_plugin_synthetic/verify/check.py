"""One line of a verification report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """What was looked at and what was found.

    ok         whether it is as it must be; None: decided by p_value, or a fact for the reader if there is none
    value      what was found, with the interval that holds the truth in 99 of 100 cases
    expected   what the generator's options say
    p_value    of a test whose null hypothesis is that all is as it should be
    """

    name: str
    ok: bool | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    expected: float | None = None
    p_value: float | None = None
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is not known."""
        return {key: value for key, value in asdict(self).items() if value is not None and value != ""}


def exactly(name: str, found: float, expected: float, detail: str = "") -> Check:
    """A number that leaves no room for chance."""
    return Check(name, ok=bool(found == expected), value=float(found), expected=float(expected), detail=detail)


def at_least(name: str, found: float, bound: float, detail: str = "") -> Check:
    """A number that must reach a bound."""
    return Check(
        name, ok=bool(found >= bound), value=float(found), expected=bound, detail=detail or f"at least {bound}"
    )
