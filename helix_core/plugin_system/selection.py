"""Choosing a component, with a reason for every candidate."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from helix_core.descriptors import KINDS, Availability, Descriptor
from helix_core.errors import AmbiguousComponent, ComponentNotFound, ComponentUnavailable, HelixError, UsageError
from helix_core.plugin_system.catalogue import catalogued, distribution_of
from helix_core.plugin_system.loading import describe_failure, without_exit
from helix_core.plugin_system.refs import load_ref
from helix_core.plugin_system.registry import Component, Registry, get_registry
from helix_core.plugin_system.requirements import unmet_requirement
from helix_core.suggest import did_you_mean

AUTO = "auto"


class HelixWarning(UserWarning):
    """Something the user should know although the job goes on."""


@dataclass(frozen=True)
class Candidate:
    """A component that was looked at: accepted, or refused for a reason."""

    component: Component
    accepted: bool
    reason: str
    broken: bool = False


@dataclass(frozen=True)
class Selection:
    """The outcome: what was chosen and how, or the error that choosing it would raise."""

    kind: str
    requested: str
    how: str
    candidates: tuple[Candidate, ...]
    component: Component | None = None
    error: HelixError | None = None

    @property
    def chosen(self) -> Component:
        """The component. Raises the selection's error if there is none."""
        if self.component is None:
            raise self.error or ComponentUnavailable(f"no {self.kind} could be chosen")
        return self.component


def select(kind: str, name: str = AUTO, needs: Iterable[str] = (), *, registry: Registry | None = None) -> Selection:
    """Choose a component; `needs` are capabilities that it must provide.

    Raises ComponentNotFound, AmbiguousComponent or ComponentUnavailable, each saying why and what to do.
    """
    selection = explain(kind, name, needs, registry=registry)
    if selection.error is not None:
        raise selection.error
    return selection


def explain(kind: str, name: str = AUTO, needs: Iterable[str] = (), *, registry: Registry | None = None) -> Selection:
    """The same choice without raising: the error, if any, is in the result. Raises UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"no kind of component named {kind!r}{did_you_mean(kind, KINDS)}")
    registry = registry or get_registry()
    needs = tuple(needs)
    if name != AUTO:
        return _exact(registry, kind, name, needs, "asked for by name")
    pin = registry.settings.pins.get(kind)
    if pin:
        return _exact(registry, kind, pin, needs, f"pinned by {registry.settings.origin(f'pin.{kind}')}")
    return _automatic(registry, kind, needs)


def _exact(registry: Registry, kind: str, name: str, needs: Sequence[str], how: str) -> Selection:
    """A name given explicitly: it is used or it is an error, never something else."""
    matches = [c for c in registry.components(kind) if name in (c.name, c.full_name)]
    if not matches:
        return Selection(kind, name, how, (), error=_not_found(registry, kind, name))
    if len(matches) > 1:
        listed = " or ".join(c.full_name for c in matches)
        error: HelixError = AmbiguousComponent(
            f"{kind} {name!r} is provided by several plugins", hint=f"ask for {listed}"
        )
        return Selection(kind, name, how, tuple(Candidate(c, False, "same name") for c in matches), error=error)
    candidate = _consider(matches[0], needs)
    if candidate.accepted:
        return Selection(kind, name, how, (candidate,), matches[0])
    error = ComponentUnavailable(f"{kind} {matches[0].full_name!r} cannot be used: {candidate.reason}")
    return Selection(kind, name, how, (candidate,), error=error)


def _automatic(registry: Registry, kind: str, needs: Sequence[str]) -> Selection:
    components = sorted(registry.components(kind), key=lambda c: (-c.descriptor.priority, c.full_name))
    candidates = [_consider(c, needs) for c in components]
    accepted = [c for c in candidates if c.accepted]
    replaced = {old: c.component.full_name for c in accepted for old in c.component.descriptor.replaces}
    candidates = [
        Candidate(c.component, False, f"replaced by {replaced[c.component.full_name]}")
        if c.accepted and c.component.full_name in replaced
        else c
        for c in candidates
    ]
    usable = [c.component for c in candidates if c.accepted]

    def outcome(how: str, component: Component | None = None, error: HelixError | None = None) -> Selection:
        return Selection(kind, AUTO, how, tuple(candidates), component, error)

    if not components:
        return outcome("automatic", error=_not_found(registry, kind, None))
    if not usable:
        reasons = "".join(f"\n  {c.component.full_name}: {c.reason}" for c in candidates)
        return outcome("automatic", error=ComponentUnavailable(f"no {kind} can be used here:{reasons}"))
    descriptors: list[Descriptor] = [c.descriptor for c in usable]
    if answer := registry.choose(kind, descriptors):
        plugin, name = answer
        named = [c for c in usable if name in (c.name, c.full_name)]
        if len(named) == 1:
            return outcome(f"helix_choose of plugin {plugin}", named[0])
        problem = ComponentUnavailable(f"plugin {plugin!r} chose {kind} {name!r}, which cannot be used here")
        return outcome(f"helix_choose of plugin {plugin}", error=problem)
    best = usable[0]
    passed_over = [
        c for c in candidates if c.broken and c.component.descriptor.priority > best.descriptor.priority
    ]
    if passed_over and registry.settings.strict:
        first = passed_over[0]
        return outcome("automatic", error=ComponentUnavailable(f"{first.component.full_name} is broken: {first.reason}"))
    return outcome(f"highest priority ({best.descriptor.priority}) that can be used", best)


def _consider(component: Component, needs: Sequence[str]) -> Candidate:
    """Needs, then requirements, then the probe: the first that fails is the reason."""
    descriptor = component.descriptor
    missing = [need for need in needs if need not in descriptor.provides]
    if missing:
        return Candidate(component, False, f"does not provide {', '.join(missing)}")
    for requirement in descriptor.requires:
        if reason := unmet_requirement(requirement):
            return Candidate(component, False, reason)
    availability, _ = probe(descriptor)
    return Candidate(component, availability.available, availability.reason, availability.broken)


def probe(descriptor: Descriptor) -> tuple[Availability, float]:
    """Ask a component whether it works here: the answer, and the seconds it took."""
    if descriptor.probe is None:
        return Availability(True, "ready"), 0.0
    began = time.perf_counter()
    reference = descriptor.probe
    try:
        answer = without_exit(lambda: load_ref(reference)())
        if not isinstance(answer, Availability):
            raise TypeError(f"probe returned {type(answer).__name__}, not Availability")
    except Exception as error:
        answer = Availability(False, f"probe failed: {describe_failure(error)}", broken=True)
    return answer, time.perf_counter() - began


def warn_about_broken(selection: Selection) -> None:
    """Say so if `auto` passed over something that is there but does not work."""
    from helix_core.events import emit

    chosen = selection.chosen
    for candidate in selection.candidates:
        if candidate.broken and candidate.component.descriptor.priority > chosen.descriptor.priority:
            name = candidate.component.full_name
            text = f"{selection.kind} {name} is broken ({candidate.reason}); using {chosen.full_name}"
            warnings.warn(text, HelixWarning, stacklevel=3)
            emit("fell_back", kind=selection.kind, broken=name, reason=candidate.reason, using=chosen.full_name)


def _not_found(registry: Registry, kind: str, name: str | None) -> HelixError:
    what = f"no {kind} is installed" if name is None else f"no {kind} named {name!r} is installed"
    broken = [p for p in registry.plugins() if p.status != "ok"]
    distribution = distribution_of(kind, name) if name else None
    if name is not None and distribution is not None:
        if culprit := next((p for p in broken if p.distribution == distribution), None):
            # It is installed: telling the user to install it would send them in a circle.
            return ComponentUnavailable(
                f"{kind} {name!r} belongs to plugin {culprit.name!r}, which is {culprit.status}: {culprit.reason}"
            )
        return ComponentNotFound(what, hint=f"pip install {distribution}")
    if name is None:
        return ComponentNotFound(what, hint="`helix plugins` lists what is installed")
    installed = [c.name for c in registry.components(kind)] + [c.full_name for c in registry.components(kind)]
    others = "".join(f"\n  plugin {p.name} is {p.status}: {p.reason}" for p in broken)
    suggestion = did_you_mean(name, dict.fromkeys(installed + catalogued(kind)))
    listed = ", ".join(sorted(dict.fromkeys(installed[: len(installed) // 2]))) or "none"
    return ComponentNotFound(f"{what}{suggestion}{others}", hint=f"installed: {listed}")
