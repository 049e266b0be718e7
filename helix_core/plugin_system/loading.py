"""Loading plugin modules with stevedore, one failure never stopping the rest."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helix_core.plugin_system.discovery import Found


def load_modules(found: list[Found]) -> dict[str, ModuleType | str]:
    """Import the modules of `found`: by plugin name, the module or why it could not be imported.

    A plugin that raises or calls sys.exit() on import fails alone; Ctrl-C is passed on.
    """
    from stevedore.extension import ExtensionManager

    results: dict[str, ModuleType | str] = {}

    def failed(manager: Any, entry_point: Any, error: BaseException) -> None:
        results[entry_point.name] = describe_failure(error)

    class Loader(ExtensionManager[Any]):
        """stevedore without its disk cache, which can hold entry points of an install that is gone."""

        def list_entry_points(self) -> list[Any]:
            return [_Guarded(one.entry_point) for one in found]

    loader = Loader("helix.plugins", invoke_on_load=False, on_load_failure_callback=failed)
    results.update({extension.name: extension.plugin for extension in loader})
    return results


class _Guarded:
    """An entry point whose load turns SystemExit into an ordinary failure."""

    def __init__(self, entry_point: Any) -> None:
        self._entry_point = entry_point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry_point, name)

    def load(self) -> Any:
        return without_exit(self._entry_point.load)


def without_exit(function: Callable[[], Any]) -> Any:
    """Call `function`; SystemExit becomes a RuntimeError."""
    try:
        return function()
    except SystemExit as error:
        raise RuntimeError(f"it called sys.exit({error.code!r})") from error


def describe_failure(error: BaseException) -> str:
    """An exception in one line, with the place of its cause."""
    cause: BaseException = error.__cause__ if isinstance(error.__cause__, SystemExit) else error
    frames = traceback.extract_tb(cause.__traceback__)
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}:{error.lineno})"
    else:
        inside = [f for f in frames if "importlib" not in f.filename and "/helix_core/plugin_system/" not in f.filename]
        where = f" ({inside[-1].filename}:{inside[-1].lineno})" if inside else ""
    return f"{type(error).__name__}: {error}{where}"
