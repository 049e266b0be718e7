"""The registry: which plugins there are, how each fared, and the components they provide."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

import pluggy

from helix_core import hookspecs
from helix_core.descriptors import DESCRIPTORS, KINDS, PLUGIN_API, Descriptor
from helix_core.plugin_system.discovery import Found, discover
from helix_core.plugin_system.loading import describe_failure, load_modules, without_exit
from helix_core.plugin_system.refs import is_ref
from helix_core.settings import Settings, load_settings

CORE = "core"
_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]*$")
_CLASSES = {cls.kind: cls for cls in DESCRIPTORS}


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


@dataclass(frozen=True)
class Component:
    """A component: its descriptor and the plugin it comes from."""

    plugin: str
    descriptor: Descriptor

    @property
    def kind(self) -> str:
        return self.descriptor.kind

    @property
    def name(self) -> str:
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
    found: list[Found] | None = None

    def __post_init__(self) -> None:
        self._plugins: dict[str, PluginInfo] = {}
        self._components: list[Component] = []
        self._silenced: set[str] = set()
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self._load()

    def plugins(self) -> tuple[PluginInfo, ...]:
        """Every plugin, core first, then by name."""
        return tuple(self._plugins.values())

    def components(self, kind: str | None = None) -> tuple[Component, ...]:
        """The components of all plugins that work, of one kind or of all."""
        return tuple(c for c in self._components if kind is None or c.kind == kind)

    def choose(self, kind: str, candidates: list[Descriptor]) -> tuple[str, str] | None:
        """The first plugin whose `helix_choose` names a component, and the name."""
        for plugin, hook in self._hooks("helix_choose"):
            try:
                chosen = hook(kind=kind, candidates=candidates)
            except Exception as error:
                self._fail(plugin, f"helix_choose raised {describe_failure(error)}")
                continue
            if chosen is not None:
                return plugin, chosen
        return None

    def event_observers(self) -> dict[str, Callable[..., Any]]:
        """The plugins that observe events, each with its own caller."""
        return {plugin: hook for plugin, hook in self._hooks("helix_event") if plugin not in self._silenced}

    def silence(self, plugin: str) -> None:
        """Stop telling a plugin about events."""
        self._silenced.add(plugin)

    def _load(self) -> None:
        import helix_core

        builtin = self.builtin
        if builtin is None:
            import helix_core.builtin

            builtin = helix_core.builtin
        version = helix_core.__version__
        self._plugins[CORE] = PluginInfo(CORE, "helix-core", version, builtin.__name__, "ok")
        self._ask(CORE, builtin)
        allowed = []
        for one in discover(version) if self.found is None else self.found:
            info = PluginInfo(one.name, one.distribution, one.version, one.module, "ok", "", one.editable)
            denied = self._denied(one)
            if denied or one.refusal:
                info = replace(
                    info, status="denied" if denied else "incompatible", reason=denied or one.refusal or ""
                )
                # A plugin that lost its name to another is listed beside it, under its distribution.
                key = one.name if one.name not in self._plugins else f"{one.name} ({one.distribution})"
                self._plugins[key] = replace(info, name=key)
                continue
            self._plugins[one.name] = info
            allowed.append(one)
        for name, loaded in sorted(load_modules(allowed).items()):
            if isinstance(loaded, str):
                self._fail(name, f"cannot be imported: {loaded}")
            elif reason := api_refusal(getattr(loaded, "PLUGIN_API", PLUGIN_API)):
                self._fail(name, reason, status="incompatible")
            else:
                self._ask(name, loaded)

    def _denied(self, one: Found) -> str | None:
        def matches(patterns: tuple[str, ...]) -> str | None:
            return next((p for p in patterns if fnmatchcase(one.name, p) or fnmatchcase(one.distribution, p)), None)

        settings = self.settings
        if pattern := matches(settings.deny):
            return f"denied by {pattern!r} ({settings.origin('plugins.deny')})"
        if settings.allow and not matches(settings.allow):
            return f"not in the allow list ({settings.origin('plugins.allow')})"
        return None

    def _ask(self, name: str, module: ModuleType) -> None:
        """Register a module and collect its components; any fault marks the whole plugin as failed."""
        try:
            self.manager.register(module, name)
            components = [
                Component(name, descriptor)
                for kind, hook_name in hookspecs.KIND_HOOKS.items()
                for descriptor in self._call(name, hook_name, kind)
            ]
        except Exception as error:
            reason = str(error) if isinstance(error, _BadDescriptor) else describe_failure(error)
            self._fail(name, reason)
            return
        self._components += components

    def _call(self, plugin: str, hook_name: str, kind: str) -> list[Descriptor]:
        found: list[Descriptor] = []
        for caller_name, hook in self._hooks(hook_name):
            if caller_name != plugin:
                continue
            returned = without_exit(hook)
            if returned is None:
                continue
            if not isinstance(returned, list | tuple):
                raise _BadDescriptor(f"{hook_name} must return a list, not {type(returned).__name__}")
            for descriptor in returned:
                _check(descriptor, kind, hook_name)
                if any(other.name == descriptor.name for other in found):
                    raise _BadDescriptor(f"{hook_name} returns two components named {descriptor.name!r}")
                found.append(descriptor)
        return found

    def _hooks(self, hook_name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Each plugin that implements a hook, with a caller that reaches this plugin alone."""
        everyone = {plugin for _, plugin in self.manager.list_name_plugin()}
        caller = getattr(self.manager.hook, hook_name)
        for implementation in caller.get_hookimpls():
            others = everyone - {implementation.plugin}
            alone = self.manager.subset_hook_caller(hook_name, others)
            yield implementation.plugin_name, _first(alone) if hook_name != "helix_choose" else alone

    def _fail(self, name: str, reason: str, status: str = "failed") -> None:
        self._plugins[name] = replace(self._plugins[name], status=status, reason=reason)
        self._components = [c for c in self._components if c.plugin != name]
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)


def _first(hook: Callable[..., list[Any]]) -> Callable[..., Any]:
    """A hook call that reaches one plugin: its result instead of a list with it."""

    def call(**arguments: Any) -> Any:
        results = hook(**arguments)
        return results[0] if results else None

    return call


class _BadDescriptor(ValueError):
    """What a hook returned breaks the contract."""


def _check(descriptor: Any, kind: str, hook_name: str) -> None:
    cls = _CLASSES[kind]
    if not isinstance(descriptor, cls):
        raise _BadDescriptor(f"{hook_name} must return {cls.__name__} objects, not {type(descriptor).__name__}")
    label = f"{kind} {descriptor.name!r}"
    if not isinstance(descriptor.name, str) or not _NAME.match(descriptor.name):
        raise _BadDescriptor(f"{label}: a name is made of a-z, 0-9, '-' and '_'")
    refs: Mapping[str, str | None] = {
        "target": descriptor.target,
        "config": descriptor.config,
        "probe": descriptor.probe,
        "supports": getattr(descriptor, "supports", None),
    }
    for field_name, ref in refs.items():
        if ref is not None and not (isinstance(ref, str) and is_ref(ref)):
            raise _BadDescriptor(f"{label}: {field_name} must be 'module:attribute', not {ref!r}")
    if reason := api_refusal(descriptor.api):
        raise _BadDescriptor(f"{label} {reason}")


def api_refusal(api: object) -> str | None:
    """Why a plugin API version does not fit this core's, or None."""
    try:
        major, minor = (int(part) for part in str(api).split("."))
    except ValueError:
        return f"has PLUGIN_API {api!r}, which is not of the form '1.0'"
    core_major, core_minor = (int(part) for part in PLUGIN_API.split("."))
    if major != core_major or minor > core_minor:
        return f"is written for plugin API {api}, this core has {PLUGIN_API}"
    return None


_lock = threading.RLock()
_registry: Registry | None = None


def get_registry() -> Registry:
    """The registry of this process, built on first use."""
    global _registry
    with _lock:
        if _registry is None:
            _registry = Registry()
        return _registry


def loaded_registry() -> Registry | None:
    """The registry if it has been built."""
    return _registry


def reload() -> Registry:
    """Discover and load everything anew, after an install or a change of settings."""
    global _registry
    from helix_core.plugin_system.requirements import unmet_requirement

    with _lock:
        unmet_requirement.cache_clear()
        _registry = Registry()
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


__all__ = ["CORE", "KINDS", "Component", "PluginInfo", "Registry", "get_registry", "reload", "use_registry"]
