"""For `helix doctor`: whether what descriptors and pins name is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from helix_core.errors import ComponentUnavailable
from helix_core.suggest import did_you_mean

if TYPE_CHECKING:
    from helix_core.plugin_system import Component
    from helix_core.plugin_system.settings import Settings


def broken_components(usable_backends: Iterable[str]) -> Iterator[str]:
    """Import what every component that could be used here names, and say what is not there or none of its kind.

    Passed over are those whose requirements or probe rule them out, backends (they have been created already), and
    kernels for arrays that no usable backend has.
    """
    from helix_core.plugin_system import check, components, create_target, probe
    from helix_core.plugin_system.descriptors import KernelDescriptor
    from helix_core.plugin_system.requirements import unmet_requirement

    usable = set(usable_backends)
    spaces = {create_target(c).namespace for c in components("backend") if c.full_name in usable}
    for component in components():
        descriptor = component.descriptor
        if isinstance(descriptor, KernelDescriptor):
            if problem := _unknown_op(component, descriptor.op):
                yield problem
                continue
            if descriptor.namespace not in spaces:
                continue
        if component.kind == "backend" or any(map(unmet_requirement, descriptor.requires)):
            continue
        answer, _ = probe(descriptor)
        if answer.broken:
            yield f"{component.kind} {component.full_name} is broken: {answer.reason}"
        elif answer.available:
            try:
                check(component)
            except ComponentUnavailable as error:
                yield error.message


def wrong_pins(settings: Settings) -> Iterator[str]:
    """Say which pins of the user's settings name something that is not there or cannot be used."""
    from helix_core.ops.table import REFERENCE
    from helix_core.plugin_system import components, explain

    for kind in settings.pins:
        if error := explain(kind).error:
            yield error.message
    for op, name in settings.kernels.items():
        names = [n for c in components("kernel") if _op_of(c) == op for n in (c.name, c.full_name)]
        if name not in (*names, REFERENCE):
            meant, origin = did_you_mean(name, [*names, REFERENCE]), settings.origin(f"kernels.{op}")
            yield f"op {op!r} is pinned to kernel {name!r}, which is not installed{meant} ({origin})"


def _op_of(component: Component) -> str:
    return str(getattr(component.descriptor, "op", ""))


def _unknown_op(component: Component, op: str) -> str | None:
    from helix_core.ops import OPS

    if op in OPS:
        return None
    return f"kernel {component.full_name} is for an op {op!r}, which there is not{did_you_mean(op, OPS)}"
