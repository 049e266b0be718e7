"""The hooks a plugin module may implement: one per component kind, one for policy, one for events.

A plugin module is named by the entry-point group `helix.plugins`, is cheap to import, and marks its functions with
`@helix_core.hookimpl`. Core calls one plugin at a time, so one plugin's exception never hides another's components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from helix_core.events import Event
    from helix_core.plugin_system.descriptors import (
        BackendDescriptor,
        CommandDescriptor,
        Descriptor,
        GeneratorDescriptor,
        KernelDescriptor,
        LayerDescriptor,
        LRScheduleDescriptor,
        MemoryDescriptor,
        OptimizerDescriptor,
    )

PROJECT = "helix"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def helix_backends() -> Sequence[BackendDescriptor]:  # type: ignore[empty-body]
    """Return the backends this plugin provides."""


@hookspec
def helix_kernels() -> Sequence[KernelDescriptor]:  # type: ignore[empty-body]
    """Return the kernels this plugin adds to the op table."""


@hookspec
def helix_layers() -> Sequence[LayerDescriptor]:  # type: ignore[empty-body]
    """Return the layers this plugin provides."""


@hookspec
def helix_optimizers() -> Sequence[OptimizerDescriptor]:  # type: ignore[empty-body]
    """Return the optimizers this plugin provides."""


@hookspec
def helix_lr_schedules() -> Sequence[LRScheduleDescriptor]:  # type: ignore[empty-body]
    """Return the learning-rate schedules this plugin provides."""


@hookspec
def helix_memories() -> Sequence[MemoryDescriptor]:  # type: ignore[empty-body]
    """Return the memory systems this plugin provides."""


@hookspec
def helix_generators() -> Sequence[GeneratorDescriptor]:  # type: ignore[empty-body]
    """Return the synthetic-data generators this plugin provides."""


@hookspec
def helix_commands() -> Sequence[CommandDescriptor]:  # type: ignore[empty-body]
    """Return the `helix` subcommands this plugin provides."""


@hookspec(firstresult=True)
def helix_choose(kind: str, candidates: Sequence[Descriptor]) -> str | None:
    """Return the `plugin/name` that `auto` should use, or None to leave the choice to priority."""


@hookspec
def helix_event(event: Event) -> None:
    """Observe an event: a component selected or bound, a fallback, a training step, a checkpoint."""


KIND_HOOKS: dict[str, str] = {
    "backend": "helix_backends",
    "kernel": "helix_kernels",
    "layer": "helix_layers",
    "optimizer": "helix_optimizers",
    "lr_schedule": "helix_lr_schedules",
    "memory": "helix_memories",
    "generator": "helix_generators",
    "command": "helix_commands",
}
