"""Events: what happened, told to whoever observes.

Observers are functions subscribed in this process and the `helix_event` hooks of loaded plugins. A failing
observer is reported once and left out from then on; it never stops a job.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helix_core.isolation import contained, isolated

if TYPE_CHECKING:
    from helix_core.plugin_system.registry import Registry

Observer = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """A named event with plain data and the wall-clock time in seconds since the epoch."""

    name: str
    data: Mapping[str, Any]
    time: float = field(default_factory=time.time)


_subscribers: list[Observer] = []


def emit(name: str, /, **data: Any) -> None:
    """Tell every observer. Costs next to nothing while nobody listens; never loads a plugin to find one."""
    # Where the plugin system has not been imported, no plugin can be listening.
    module = sys.modules.get("helix_core.plugin_system.registry")
    registry: Registry | None = module.loaded_registry() if module else None
    plugin_observers = registry.event_observers() if registry else {}
    if not _subscribers and not plugin_observers:
        return
    event = Event(name, MappingProxyType(data))
    for observer in list(_subscribers):
        try:
            contained(partial(observer, event))
        except Exception as error:
            if observer in _subscribers:
                _subscribers.remove(observer)
            text = f"an observer failed on {name!r} and is left out: {error!r}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
    for plugin, hook in plugin_observers.items():
        try:
            isolated(partial(hook, event=event))
        except Exception as error:
            assert registry is not None
            registry.silence(plugin)
            text = f"plugin {plugin!r} failed to observe {name!r} and is left out: {error!r}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)


@contextmanager
def subscribe(observer: Observer) -> Iterator[None]:
    """Call `observer` on every event inside the context."""
    _subscribers.append(observer)
    try:
        yield
    finally:
        if observer in _subscribers:
            _subscribers.remove(observer)
