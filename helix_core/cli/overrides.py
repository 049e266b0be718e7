"""Options of the form `a.b=c`."""

from __future__ import annotations

from typing import Any

from helix_core.errors import ConfigError
from helix_core.untrusted import parse_toml


def apply_override(data: dict[str, Any], item: str) -> str:
    """Set `a.b=c` in nested tables; c is read as a TOML value, or as text if it is none. Returns the path."""
    if not is_utf8(item):
        raise ConfigError(f"--set {item!r} is not UTF-8 text, as a recipe is", hint="name such a file by a glob")
    dotted, separator, value = item.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    if not separator or not all(keys):
        raise ConfigError(f"--set takes key.path=value, not {item!r}")
    target = data
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {item}: {key!r} is a value, not a table")
    try:
        target[keys[-1]] = parse_toml(f"value = {value}", "--set", ConfigError)["value"]
    except ConfigError:
        target[keys[-1]] = value.strip()
    return ".".join(keys)


def is_utf8(text: str) -> bool:
    """Whether a text can stand in a recipe: names of files may hold bytes that no text has."""
    return text == text.encode("utf-8", "replace").decode()
