"""Loading plugin modules with stevedore, one failure never stopping the rest."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from helix_core import isolation
from helix_core.isolation import isolated, text_of

if TYPE_CHECKING:
    from helix_core.plugin_system.discovery import Found

_OURS = (str(Path(__file__).parent), isolation.__file__)


def load_modules(found: list[Found]) -> dict[str, ModuleType | str]:
    """Import the modules of `found`: by plugin name, the module or why it could not be imported.

    A plugin that raises anything on import, SystemExit and the like included, fails alone; Ctrl-C is passed on.
    """
    from stevedore.extension import ExtensionManager

    results: dict[str, ModuleType | str] = {}

    def failed(manager: Any, entry_point: Any, error: BaseException) -> None:
        results[entry_point.name] = str(error)

    class Loader(ExtensionManager[Any]):
        """stevedore without its disk cache, which can hold entry points of an install that is gone."""

        def list_entry_points(self) -> list[Any]:
            return [_Guarded(one.entry_point) for one in found]

    loader = Loader("helix.plugins", invoke_on_load=False, on_load_failure_callback=failed)
    for extension in loader:
        module: Any = extension.plugin
        results[extension.name] = module
    return results


class _LoadFailed(Exception):
    """Why a plugin could not be imported."""


class _Guarded:
    """An entry point whose every failure to load reaches stevedore's callback.

    stevedore itself lets SystemExit and AssertionError through, which would take every other plugin down.
    """

    def __init__(self, entry_point: Any) -> None:
        self._entry_point = entry_point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry_point, name)

    def load(self) -> Any:
        try:
            return isolated(self._entry_point.load)
        except Exception as error:
            raise _LoadFailed(describe_failure(error)) from error


def describe_failure(error: BaseException) -> str:
    """An exception in one line, with the place of its cause."""
    cause = error.__cause__
    if cause is None or isinstance(cause, Exception):  # else `isolated` stands between
        cause = error
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}:{error.lineno})"
    else:
        frames = [f for f in traceback.extract_tb(cause.__traceback__) if not _is_machinery(f.filename)]
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    text = " ".join((error.msg if isinstance(error, SyntaxError) else text_of(error)).split())
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def _is_machinery(filename: str) -> bool:
    """Whether a frame belongs to importing itself rather than to what was imported."""
    return filename.startswith(("<frozen importlib", *_OURS)) or Path(filename).parent.name in (
        "importlib",
        "importlib_metadata",
    )
