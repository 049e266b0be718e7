"""The user's own settings: pins, allow and deny lists, strictness, from files and the environment.

Read in this order, later ones winning: the user's config.toml, ./helix.toml (or the file in HELIX_CONFIG),
and environment variables. Every value remembers where it came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helix_core.errors import ConfigError
from helix_core.op_names import OP_NAMES
from helix_core.plugin_system.descriptors import KINDS
from helix_core.suggest import did_you_mean, nearest
from helix_core.untrusted import read_toml

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
    for path in _files(environ, cwd):
        settings = _merge(settings, read_toml(path, ConfigError), str(path))
    return _from_environment(settings, environ)


def _files(environ: Mapping[str, str], cwd: Path | None) -> list[Path]:
    """Those that there are: a home that is missing or closed, or a working folder that is gone, has none."""
    if sys.platform == "win32":
        home = environ.get("APPDATA") or os.path.expanduser("~")
    else:
        home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    files = [Path(home, "helix", "config.toml")] if os.path.isabs(home) else []
    named = environ.get("HELIX_CONFIG")
    if named:
        if not os.path.isfile(named):
            raise ConfigError(f"HELIX_CONFIG names {named}, which is not a file")
        files.append(Path(named))
    else:
        files.append((cwd or Path()) / "helix.toml")
    return [Path(os.path.abspath(path)) for path in files if os.path.isfile(path)]


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
        check(kernels, OP_NAMES, "kernels.")
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


def _check_variables(environ: Mapping[str, str], kernel: str) -> None:
    """Raise ConfigError for a variable that is much like one of ours: a pin that is not heard must not pass unnoticed.

    Others that begin with HELIX_ may be a plugin's own.
    """
    ours = {"HELIX_CONFIG", "HELIX_DEBUG", "HELIX_STRICT", "HELIX_PLUGINS_ALLOW", "HELIX_PLUGINS_DENY"}
    ours |= {f"HELIX_{kind.upper()}" for kind in KINDS}
    for variable in environ:
        if not variable.startswith("HELIX_") or variable in ours:
            continue
        if variable.startswith("HELIX_KERN"):
            known = [kernel + op.upper() for op in OP_NAMES]
            if variable not in known and (variable.startswith(kernel) or nearest(variable, known, cutoff=0.85)):
                raise ConfigError(f"{variable} pins the kernel of no op that there is{did_you_mean(variable, known)}")
        elif (match := nearest(variable, ours, cutoff=0.85)) is not None:
            raise ConfigError(f"{variable} is no variable of Helix; did you mean {match!r}?")


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
    _check_variables(environ, prefix)
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
