"""The user's own settings: pins, allow and deny lists, strictness, from files and the environment.

Read in this order, later ones winning: the user's config.toml, ./helix.toml (or the file in HELIX_CONFIG),
and environment variables. Every value remembers where it came from.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helix_core.errors import ConfigError
from helix_core.plugin_system.descriptors import KINDS
from helix_core.suggest import did_you_mean

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


@dataclass(frozen=True)
class Settings:
    """What the user decided.

    allow, deny   patterns on plugin or distribution names; an empty allow list allows all
    pins          component name by kind, for `auto`
    kernels       kernel name by op
    strict        a broken accelerator under `auto` is an error, not a warning
    origins       where each value came from, by dotted key
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    kernels: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Where a value came from: a file or an environment variable."""
        return self.origins.get(key, "default")


def load_settings(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """The settings in force. Raises ConfigError for an unreadable file, an unknown key or a wrong type."""
    environ = os.environ if environ is None else environ
    settings = Settings()
    for path in _files(environ, cwd or Path.cwd()):
        settings = _merge(settings, _read(path), str(path))
    return _from_environment(settings, environ)


def _files(environ: Mapping[str, str], cwd: Path) -> list[Path]:
    if sys.platform == "win32":
        home = Path(environ.get("APPDATA", Path.home()))
    else:
        home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [home / "helix" / "config.toml"]
    named = environ.get("HELIX_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"HELIX_CONFIG names {named}, which is not a file")
        files.append(Path(named))
    else:
        files.append(cwd / "helix.toml")
    return [path for path in files if path.is_file()]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read settings {path}: {error}") from error


def _merge(settings: Settings, data: Mapping[str, Any], origin: str) -> Settings:
    def check(keys: Mapping[str, Any], known: tuple[str, ...], prefix: str = "") -> None:
        for key in keys:
            if key not in known:
                raise ConfigError(f"{origin}: unknown setting {prefix + key!r}{did_you_mean(key, known)}")

    check(data, ("plugins", "pin", "kernels", "strict"))
    for table in ("plugins", "pin", "kernels"):
        if not isinstance(data.get(table, {}), dict):
            raise ConfigError(f"{origin}: {table!r} must be a table")
    plugins, pins, kernels = (data.get(table, {}) for table in ("plugins", "pin", "kernels"))
    check(plugins, ("allow", "deny"), "plugins.")
    check(pins, KINDS, "pin.")
    if kernels:
        from helix_core.ops import OPS

        check(kernels, tuple(OPS), "kernels.")
    found: dict[str, Any] = {}
    for key, value in plugins.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{origin}: 'plugins.{key}' must be a list of names")
        found[key] = tuple(value)
    for table, values in (("pin", pins), ("kernels", kernels)):
        for key, value in values.items():
            if not isinstance(value, str):
                raise ConfigError(f"{origin}: '{table}.{key}' must be a name")
    if "strict" in data:
        if not isinstance(data["strict"], bool):
            raise ConfigError(f"{origin}: 'strict' must be true or false")
        found["strict"] = data["strict"]
    origins = {f"plugins.{key}": origin for key in plugins}
    origins |= {f"pin.{key}": origin for key in pins} | {f"kernels.{key}": origin for key in kernels}
    if "strict" in data:
        origins["strict"] = origin
    return replace(
        settings,
        **found,
        pins={**settings.pins, **pins},
        kernels={**settings.kernels, **kernels},
        origins={**settings.origins, **origins},
    )


def _from_environment(settings: Settings, environ: Mapping[str, str]) -> Settings:
    data: dict[str, Any] = {"plugins": {}, "pin": {}, "kernels": {}}
    names: dict[str, str] = {}

    def take(variable: str, table: str, key: str, value: Any) -> None:
        data[table][key] = value
        names[f"{table}.{key}"] = variable

    for list_name in ("allow", "deny"):
        variable = f"HELIX_PLUGINS_{list_name.upper()}"
        if variable in environ:
            take(
                variable,
                "plugins",
                list_name,
                [part.strip() for part in environ[variable].split(",") if part.strip()],
            )
    for kind in KINDS:
        variable = f"HELIX_{kind.upper()}"
        if environ.get(variable):
            take(variable, "pin", kind, environ[variable])
    prefix = "HELIX_KERNEL_"
    for variable, value in environ.items():
        if variable.startswith(prefix) and value:
            take(variable, "kernels", variable.removeprefix(prefix).lower(), value)
    if "HELIX_STRICT" in environ:
        word = environ["HELIX_STRICT"].lower()
        if word not in _TRUE | _FALSE:
            raise ConfigError(f"HELIX_STRICT must be 1 or 0, not {word!r}")
        data["strict"] = word in _TRUE
        names["strict"] = "HELIX_STRICT"
    if not names:
        return settings
    merged = _merge(settings, data, "the environment")
    return replace(merged, origins={**merged.origins, **names})
