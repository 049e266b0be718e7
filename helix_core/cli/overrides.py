"""Options of the form `a.b=c`."""

from __future__ import annotations

import tomllib
from typing import Any

from helix_core.errors import ConfigError


def apply_override(data: dict[str, Any], item: str) -> str:
    """Set `a.b=c` in nested tables; c is read as a TOML value, or as text if it is none. Returns the path."""
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
        target[keys[-1]] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        target[keys[-1]] = value.strip()
    return ".".join(keys)
