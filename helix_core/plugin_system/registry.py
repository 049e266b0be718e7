"""The registry: which plugins there are, how each fared, and the components they provide."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import pluggy

from helix_core.errors import PluginError
from helix_core.events import find_plugins_with
from helix_core.isolation import isolated
from helix_core.plugin_system import hookspecs
from helix_core.plugin_system.contract import BrokenContract, api_refusal, check_descriptor, check_hook_names, is_name
from helix_core.plugin_system.descriptors import PLUGIN_API, Descriptor
from helix_core.plugin_system.discovery import Found, discover
from helix_core.plugin_system.loading import describe_failure, load_modules
from helix_core.plugin_system.policy import denial
from helix_core.plugin_system.probing import forget_late_probes
from helix_core.plugin_system.requirements import unmet_requirement
from helix_core.plugin_system.settings import Settings, load_settings
from helix_core.version import __version__

CORE = "core"


@dataclass(frozen=True)
class PluginInfo:
    """One plugin and how it fared: status is "ok", "denied", "incompatible" or "failed", with the reason."""

    name: str
    distribution: str
    version: str
    module: str
    status: str
    reason: str = ""
    editable: str | None = None

    @property
    def verdict(self) -> str:
        """How it fared, to follow its name: "failed: ...", "is denied: ..."."""
        return f"{'' if self.status == 'failed' else 'is '}{self.status}: {self.reason}"


@dataclass(frozen=True)
class Component:
    """A component: its descriptor and the plugin it comes from."""

    plugin: str
    descriptor: Descriptor

    @property
    def kind(self) -> str:
        """What it is: backend, layer, ..."""
        return self.descriptor.kind

    @property
    def name(self) -> str:
        """Its name within its plugin."""
        return self.descriptor.name

    @property
    def full_name(self) -> str:
        """`plugin/name`, which is exact."""
        return f"{self.plugin}/{self.descriptor.name}"


@dataclass
class Registry:
    """Plugins discovered, loaded and asked once, under given settings.

    builtin  the module that plays the part of core's own plugin
    found    plugins to consider instead of the installed ones, for tests
    """

    settings: Settings = field(default_factory=load_settings)
    builtin: ModuleType | None = None
    found: Sequence[Found] | None = None

    def __post_init__(self) -> None:
        self._plugins: dict[str, PluginInfo] = {}
        self._refused: list[PluginInfo] = []
        self._components: list[Component] = []
        self._silenced: set[str] = set()
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        unmet_requirement.cache_clear()
        forget_late_probes()
        self._load()

    def plugins(self) -> tuple[PluginInfo, ...]:
        """Every plugin, core first, then by name. A name that two distributions claim stands there twice."""
        everyone = [*self._plugins.values(), *self._refused]
        return tuple(sorted(everyone, key=lambda p: (p.name != CORE, p.name, p.status != "ok", p.distribution)))

    def components(self, kind: str | None = None) -> tuple[Component, ...]:
        """The components of all plugins that work, of one kind or of all."""
        return tuple(c for c in self._components if kind is None or c.kind == kind)

    def hooks(self, hook_name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Each plugin that implements a hook, with a function that calls this plugin alone."""
        caller = getattr(self.manager.hook, hook_name)
        implementations = caller.get_hookimpls()
        if not implementations:
            return
        everyone = {plugin for _, plugin in self.manager.list_name_plugin()}
        for implementation in implementations:
            alone = self.manager.subset_hook_caller(hook_name, everyone - {implementation.plugin})
            firstresult = bool(caller.spec and caller.spec.opts.get("firstresult"))
            yield implementation.plugin_name, alone if firstresult else _only(alone)

    def event_observers(self) -> dict[str, Callable[..., Any]]:
        """The plugins that observe events, each with its own caller."""
        return {plugin: hook for plugin, hook in self.hooks("helix_event") if plugin not in self._silenced}

    def silence(self, plugin: str) -> None:
        """Stop telling a plugin about events."""
        self._silenced.add(plugin)

    def _load(self) -> None:
        # By name, like every other plugin's module: the plugin system knows no component, not even core's.
        builtin = self.builtin or importlib.import_module("helix_core.reference.plugin")
        version = __version__
        self._plugins[CORE] = PluginInfo(CORE, "helix-core", version, builtin.__name__, "ok")
        self._ask(CORE, builtin)
        allowed = []
        for one in discover(version) if self.found is None else self.found:
            info = PluginInfo(one.name, one.distribution, one.version, one.module, "ok", "", one.editable)
            if reason := denial(self.settings, one):
                self._refused.append(replace(info, status="denied", reason=reason))
            elif reason := one.refusal or self._name_refusal(one):
                self._refused.append(replace(info, status="incompatible", reason=reason))
            else:
                self._plugins[one.name] = info
                allowed.append(one)
        for name, loaded in sorted(load_modules(allowed).items()):
            if isinstance(loaded, str):
                self._fail(name, f"cannot be imported: {loaded}")
            else:
                self._ask(name, loaded)

    def _name_refusal(self, one: Found) -> str | None:
        if not is_name(one.name):
            return f"a plugin name is made of a-z, 0-9, '-' and '_', not {one.name!r}"
        taken = self._plugins.get(one.name)
        if taken is None:
            return None
        return (
            f"distributions {taken.distribution} and {one.distribution} both name a plugin {one.name!r}; "
            f"{taken.distribution} is used: uninstall or deny one of the two"
        )

    def _ask(self, name: str, module: ModuleType) -> None:
        """Register a module and collect its components; any fault marks the whole plugin as failed."""
        try:
            components = isolated(lambda: self._collect(name, module))
        except _Incompatible as refusal:
            self._fail(name, str(refusal), status="incompatible")
        except Exception as error:
            broken = isinstance(error, BrokenContract | pluggy.PluginValidationError)
            self._fail(name, " ".join(str(error).split()) if broken else describe_failure(error))
        else:
            self._components += components

    def _collect(self, name: str, module: ModuleType) -> list[Component]:
        if refusal := api_refusal(getattr(module, "PLUGIN_API", PLUGIN_API)):
            raise _Incompatible(refusal)
        self.manager.register(module, name)
        check_hook_names(self.manager, module)
        return [
            Component(name, descriptor)
            for kind, hook_name in hookspecs.KIND_HOOKS.items()
            for descriptor in self._call(name, hook_name, kind)
        ]

    def _call(self, plugin: str, hook_name: str, kind: str) -> list[Descriptor]:
        found: list[Descriptor] = []
        for caller_name, hook in self.hooks(hook_name):
            if caller_name != plugin:
                continue
            returned = hook()
            if returned is None:
                continue
            if not isinstance(returned, list | tuple):
                raise BrokenContract(f"{hook_name} must return a list, not {type(returned).__name__}")
            for descriptor in returned:
                check_descriptor(descriptor, kind, hook_name)
                if any(other.name == descriptor.name for other in found):
                    raise BrokenContract(f"{hook_name} returns two components named {descriptor.name!r}")
                found.append(descriptor)
        return found

    def _fail(self, name: str, reason: str, status: str = "failed") -> None:
        self._plugins[name] = replace(self._plugins[name], status=status, reason=reason)
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)


class _Incompatible(Exception):
    """A plugin is written for another plugin API."""


def _only(hook: Callable[..., list[Any]]) -> Callable[..., Any]:
    """A hook call that reaches one plugin: its result instead of a list with it."""

    def call(**arguments: Any) -> Any:
        results = hook(**arguments)
        return results[0] if results else None

    return call


_lock = threading.RLock()
_registry: Registry | None = None
_building = False
find_plugins_with(lambda: _registry)  # events stand below: they cannot ask for it themselves


def get_registry() -> Registry:
    """The registry of this process, built on first use. Raises PluginError while it is being built."""
    with _lock:
        return _registry or _build()


def reload() -> Registry:
    """Discover and load everything anew, after an install or a change of settings."""
    with _lock:
        importlib.invalidate_caches()
        return _build()


def _build() -> Registry:
    global _registry, _building
    if _building:
        raise PluginError(
            "components were asked for while the plugins are still being loaded",
            hint="a plugin module only describes its components; ask for others when one is created",
        )
    _building = True
    try:
        _registry = Registry()
    finally:
        _building = False
    return _registry


@contextmanager
def use_registry(registry: Registry) -> Iterator[Registry]:
    """Make `registry` the one in force inside the context, for tests."""
    global _registry
    with _lock:
        previous, _registry = _registry, registry
    try:
        yield registry
    finally:
        with _lock:
            _registry = previous


__all__ = [
    "CORE",
    "Component",
    "PluginInfo",
    "Registry",
    "get_registry",
    "reload",
    "use_registry",
]
