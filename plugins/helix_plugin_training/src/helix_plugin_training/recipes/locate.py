"""Where in a TOML file a key stands, for error messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_TEXT = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'" r"|\#[^\n]*",
    re.DOTALL,
)
"""Strings and comments; every alternative is matched in time linear in its length."""


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """The 1-based line of the key at `path`, or of its nearest enclosing key or table; `text` is valid TOML."""
    keys = [str(part) for part in path if isinstance(part, str)]
    best: tuple[int, int] | None = None
    for number, here in _keys(text):
        if here == keys[: len(here)] and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None


def _keys(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines that begin with a key or a table's header, with all names that lead there."""
    table: list[str] = []
    depth = 0  # of brackets that a value has opened on lines before
    for number, line in enumerate(_TEXT.sub(_plain, text).split("\n"), 1):
        key, equals, value = line.partition("=")
        if depth == 0 and line.lstrip().startswith("["):
            table = _names(line.strip().strip("[]"))
            yield number, table
        else:
            if depth == 0 and equals:
                yield number, table + _names(key)
                line = value
            depth += sum(map(line.count, "[{")) - sum(map(line.count, "]}"))


def _plain(match: re.Match[str]) -> str:
    """A string without the signs that mean something outside of strings, on as many lines."""
    found = match[0]
    if found.startswith(('"""', "'''")):
        return "\n" * found.count("\n")
    return "" if found.startswith("#") else re.sub(r"[\[\]{}=]", "_", found)


def _names(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]
