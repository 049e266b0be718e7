"""Choosing a component, with a reason for every candidate."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from helix_core.errors import AmbiguousComponent, ComponentUnavailable, HelixError, UsageError
from helix_core.isolation import isolated
from helix_core.plugin_system.descriptors import KINDS, Descriptor
from helix_core.plugin_system.loading import describe_failure
from helix_core.plugin_system.missing import not_found
from helix_core.plugin_system.probing import probe
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
    """The outcome: what was chosen and how, or the error that choosing it would raise.

    how       "exact name", "only component of that name", "pinned by HELIX_BACKEND", "pinned in FILE",
              "helix_choose of PLUGIN" or "highest priority (N) that can be used"
    warnings  what `auto` passed over and should not do so in silence; an error under strict settings
    """

    kind: str
    requested: str
    how: str
    candidates: tuple[Candidate, ...]
    component: Component | None = None
    error: HelixError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def chosen(self) -> Component:
        """The component. Raises the selection's error if there is none."""
        if self.component is None:
            raise self.error or ComponentUnavailable(f"no {self.kind} could be chosen")
        return self.component


def select(kind: str, name: str = AUTO, needs: Iterable[str] = (), *, registry: Registry | None = None) -> Selection:
    """Choose a component; `needs` are capabilities that it must provide.

    Warns (HelixWarning) where `auto` passed over something broken. Raises ComponentNotFound,
    AmbiguousComponent or ComponentUnavailable, each saying why and what to do.

    >>> from helix_core import select
    >>> select("backend", "reference", needs=["float64"]).chosen.full_name
    'core/reference'
    """
    from helix_core.events import emit

    selection = explain(kind, name, needs, registry=registry)
    if selection.error is not None:
        raise selection.error
    for text in selection.warnings:
        using = selection.chosen.full_name
        warnings.warn(f"{text}; using {kind} {using}", HelixWarning, stacklevel=2)
        emit("fell_back", kind=kind, reason=text, using=using)
    return selection


def explain(kind: str, name: str = AUTO, needs: Iterable[str] = (), *, registry: Registry | None = None) -> Selection:
    """The choice that `select` would make, silent and without raising: error and warnings are in the result.

    Raises UsageError for an unknown kind.

    >>> from helix_core import explain
    >>> print(explain("backend", "reference", needs=["grad"]).error)
    backend 'core/reference' cannot be used: does not provide grad
    """
    if kind not in KINDS:
        raise UsageError(f"no kind of component named {kind!r}{did_you_mean(kind, KINDS)}")
    registry = registry or get_registry()
    needs = tuple(needs)
    if name != AUTO:
        return _explicit(registry, kind, name, needs)
    if pin := registry.settings.pins.get(kind):
        origin = registry.settings.origin(f"pin.{kind}")
        pinned = f"pinned {'by' if origin.startswith('HELIX_') else 'in'} {origin}"
        return replace(_explicit(registry, kind, pin, needs, pinned), requested=AUTO)
    return _automatic(registry, kind, needs)


def _explicit(registry: Registry, kind: str, name: str, needs: Sequence[str], pinned: str | None = None) -> Selection:
    """A name given explicitly: it is used or it is an error, never something else."""
    note = f" ({pinned})" if pinned else ""
    outcome = Selection(kind, name, pinned or "asked for by name", ())
    matches = [c for c in registry.components(kind) if name in (c.name, c.full_name)]
    if not matches:
        return replace(outcome, error=not_found(registry, kind, name, note))
    if len(matches) > 1:
        error: HelixError = AmbiguousComponent(
            f"{kind} {name!r} is provided by several plugins{note}",
            hint=f"ask for {' or '.join(c.full_name for c in matches)}",
        )
        same = tuple(Candidate(c, False, "same name") for c in matches)
        return replace(outcome, candidates=same, error=error)
    candidate = _consider(matches[0], needs)
    if not candidate.accepted:
        state = "is installed but broken" if candidate.broken else "cannot be used"
        text = f"{kind} {matches[0].full_name!r} {state}{note}: {candidate.reason}"
        return replace(outcome, candidates=(candidate,), error=ComponentUnavailable(text))
    how = pinned or ("exact name" if "/" in name else "only component of that name")
    return replace(outcome, how=how, candidates=(candidate,), component=matches[0])


def _automatic(registry: Registry, kind: str, needs: Sequence[str]) -> Selection:
    components = sorted(registry.components(kind), key=lambda c: (-c.descriptor.priority, c.full_name))
    candidates = _without_replaced([_consider(c, needs, by_name=False) for c in components])
    usable = [c.component for c in candidates if c.accepted]
    outcome = Selection(kind, AUTO, "automatic", tuple(candidates))
    if not components:
        return replace(outcome, error=not_found(registry, kind))
    if not usable:
        reasons = "".join(f"\n  {c.component.full_name}: {c.reason}" for c in candidates)
        return replace(outcome, error=ComponentUnavailable(f"no {kind} can be used here:{reasons}"))
    concerns = _failed_plugins(registry, kind)
    policy, answer, failures = _ask_policy(registry, kind, [c.descriptor for c in usable])
    concerns += failures
    if answer is None:
        best = usable[0]
        how = f"highest priority ({best.descriptor.priority}) that can be used"
        concerns += [
            f"{kind} {c.component.full_name} is broken ({c.reason})"
            for c in candidates
            if c.broken and c.component.descriptor.priority > best.descriptor.priority
        ]
    else:
        how = f"helix_choose of {policy}"
        named = [c for c in usable if answer in (c.name, c.full_name)]
        if len(named) != 1:
            text = f"plugin {policy!r} chose {kind} {answer!r}, which cannot be used here"
            return replace(outcome, how=how, error=ComponentUnavailable(text))
        best = named[0]
    if concerns and registry.settings.strict:
        error = ComponentUnavailable(
            "; ".join(concerns), hint=f"repair it, deny its plugin, or name the {kind} (settings are strict)"
        )
        return replace(outcome, how=how, error=error)
    return replace(outcome, how=how, component=best, warnings=tuple(concerns))


def _consider(component: Component, needs: Sequence[str], *, by_name: bool = True) -> Candidate:
    """Needs, then requirements, then the probe: the first that fails is the reason."""
    descriptor = component.descriptor
    missing = [need for need in needs if need not in descriptor.provides]
    if missing:
        return Candidate(component, False, f"does not provide {', '.join(missing)}")
    for requirement in descriptor.requires:
        if reason := unmet_requirement(requirement):
            return Candidate(component, False, reason)
    availability, _ = probe(descriptor)
    if availability.available and availability.by_name and not by_name:
        return Candidate(component, False, f"{availability.reason}; only when it is asked for by name")
    return Candidate(component, availability.available, availability.reason, availability.broken)


def _without_replaced(candidates: list[Candidate]) -> list[Candidate]:
    """Refuse what a usable component replaces; of two that replace each other, the first in order stays."""
    usable = [c.component for c in candidates if c.accepted]

    def replacer(component: Component) -> Component | None:
        for other in usable:
            if component.full_name in other.descriptor.replaces and other is not component:
                mutual = other.full_name in component.descriptor.replaces
                if not mutual or usable.index(other) < usable.index(component):
                    return other
        return None

    kept = []
    for candidate in candidates:
        if candidate.accepted and (other := replacer(candidate.component)):
            candidate = Candidate(candidate.component, False, f"replaced by {other.full_name}")
        kept.append(candidate)
    return kept


def _failed_plugins(registry: Registry, kind: str) -> list[str]:
    """Plugins whose backends nobody can know: a broken accelerator plugin must not mean a silent CPU run."""
    if kind != "backend":
        return []
    failed = [p for p in registry.plugins() if p.status in ("failed", "incompatible")]
    return [f"plugin {p.name} of {p.distribution} {p.verdict}; any {kind} it has is left out" for p in failed]


def _ask_policy(registry: Registry, kind: str, descriptors: list[Descriptor]) -> tuple[str, str | None, list[str]]:
    """The first plugin whose `helix_choose` names a component, the name, and who failed to answer."""
    failures: list[str] = []
    for plugin, hook in registry.hooks("helix_choose"):
        try:
            answer = isolated(partial(hook, kind=kind, candidates=descriptors))
            if answer is not None and not isinstance(answer, str):
                raise TypeError(f"it returned {type(answer).__name__}, not the name of a component")
        except Exception as error:
            failures.append(f"helix_choose of plugin {plugin} failed ({describe_failure(error)})")
            continue
        if answer is not None:
            return plugin, answer, failures
    return "", None, failures
