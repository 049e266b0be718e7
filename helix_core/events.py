"""Events: what happened, told to whoever observes.

Observers are functions subscribed in this process and the `helix_event` hooks of loaded plugins. A failing
observer is reported once and left out from then on; it never stops a job.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from helix_core.isolation import isolated

Observer = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """A named event with plain data and the wall-clock time in seconds since the epoch."""

    name: str
    data: Mapping[str, Any]
    time: float = field(default_factory=time.time)


class PluginObservers(Protocol):
    """The plugins that observe events: a registry."""

    def event_observers(self) -> Mapping[str, Callable[..., Any]]:
        """The `helix_event` hook of each plugin that has one."""

    def silence(self, plugin: str) -> None:
        """Stop telling a plugin about events."""


_subscribers: list[Observer] = []
_find_plugins: Callable[[], PluginObservers | None] | None = None


def find_plugins_with(find: Callable[[], PluginObservers | None]) -> None:
    """Ask `find` for the registry whose plugins are told about an event, at every event; None tells no plugin."""
    global _find_plugins
    _find_plugins = find


def emit(name: str, /, **data: Any) -> None:
    """Tell every observer. Costs next to nothing while nobody listens; never loads a plugin to find one."""
    plugins = _find_plugins() if _find_plugins else None
    plugin_observers = plugins.event_observers() if plugins else {}
    if not _subscribers and not plugin_observers:
        return
    event = Event(name, MappingProxyType(data))
    for observer in list(_subscribers):
        try:
            observer(event)  # this program's own: what is no Exception is meant for it
        except Exception as error:
            if observer in _subscribers:
                _subscribers.remove(observer)
            text = f"an observer failed on {name!r} and is left out: {error!r}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
    for plugin, hook in plugin_observers.items():
        try:
            isolated(partial(hook, event=event))
        except Exception as error:
            assert plugins is not None
            plugins.silence(plugin)
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
