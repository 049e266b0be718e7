"""Descriptors: what a plugin says about its components before anything heavy is imported.

A descriptor is frozen and holds plain strings, so that listing and choosing components costs no framework import.
References are written `"module:attribute"` and are resolved only when the component is created.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

PLUGIN_API = "1.0"
"""Version of this contract. A plugin's major must match; its minor must not exceed this one."""


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """One component of a plugin.

    name        short name, unique within its plugin and kind (`mamba`)
    target      `module:attribute` of the class or function that builds it
    summary     one line for listings
    config      `module:attribute` of its pydantic config model (extra keys forbidden), or None
    requires    PEP 508 requirements, checked from package metadata without importing
    probe       `module:attribute` of a function that returns an `Availability` within 50 ms, importing no framework
    provides    capability words that other components and the conformance kit rely on
    priority    orders `auto` only; a name given explicitly always wins
    replaces    names of components (`plugin/name`) that this one supersedes under `auto`
    api         the PLUGIN_API version it was written for
    stability   "stable" or "experimental"

    Each kind says what its components must be: instances of `contract`, with a `config` of `config_contract` where that
    is given. Where `built` is False, the component is what `target` names and not what calling it makes.
    """

    kind: ClassVar[str] = ""
    contract: ClassVar[str | None] = None
    config_contract: ClassVar[str | None] = None
    built: ClassVar[bool] = True

    name: str
    target: str
    summary: str
    config: str | None = None
    requires: tuple[str, ...] = ()
    probe: str | None = None
    provides: tuple[str, ...] = ()
    priority: int = 0
    replaces: tuple[str, ...] = ()
    api: str = PLUGIN_API
    stability: str = "stable"


@dataclass(frozen=True)
class Availability:
    """A probe's answer: usable or not, and why.

    `broken` marks hardware or a library that is present but does not work; `auto` then warns instead of passing
    over it in silence. `by_name` marks what works but is no choice for everyday use (an interpreter, an emulator):
    `auto` never takes it.
    """

    available: bool
    reason: str
    broken: bool = False
    by_name: bool = False


@dataclass(frozen=True, kw_only=True)
class BackendDescriptor(Descriptor):
    """A backend: array namespace x device x kernel table (`helix_core.kinds.backend.Backend`)."""

    kind: ClassVar[str] = "backend"
    contract: ClassVar[str | None] = "helix_core.kinds.backend:Backend"


@dataclass(frozen=True, kw_only=True)
class KernelDescriptor(Descriptor):
    """A faster implementation of one op of the op table, for one array namespace.

    op          name of the op it implements
    namespace   array namespace its arrays belong to: "torch", "mlx", "jax", "numpy", ...
    devices     device types it runs on: "cpu", "cuda", ...
    dtypes      element types it accepts
    gradient    "native": the namespace differentiates through it; "vjp": target carries its own backward
                (`helix_core.kinds.kernel.Kernel`); "none": inference only
    supports    optional `module:attribute` of a function `(DispatchKey) -> str | None` that returns why it refuses
    """

    kind: ClassVar[str] = "kernel"
    built: ClassVar[bool] = False

    op: str
    namespace: str
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32",)
    gradient: str = "none"
    supports: str | None = None


@dataclass(frozen=True, kw_only=True)
class LayerDescriptor(Descriptor):
    """A sequence-mixing (or channel-mixing) layer (`helix_core.kinds.layer.Layer`)."""

    kind: ClassVar[str] = "layer"
    contract: ClassVar[str | None] = "helix_core.kinds.layer:Layer"
    config_contract: ClassVar[str | None] = "helix_core.kinds.layer:LayerConfig"


@dataclass(frozen=True, kw_only=True)
class OptimizerDescriptor(Descriptor):
    """An optimizer (`helix_core.kinds.optimizer.Optimizer`)."""

    kind: ClassVar[str] = "optimizer"
    contract: ClassVar[str | None] = "helix_core.kinds.optimizer:Optimizer"
    config_contract: ClassVar[str | None] = "helix_core.kinds.optimizer:OptimizerConfig"


@dataclass(frozen=True, kw_only=True)
class LRScheduleDescriptor(Descriptor):
    """A learning-rate schedule (`helix_core.kinds.lr_schedule.LRSchedule`)."""

    kind: ClassVar[str] = "lr_schedule"
    contract: ClassVar[str | None] = "helix_core.kinds.lr_schedule:LRSchedule"
    config_contract: ClassVar[str | None] = "helix_core.kinds.lr_schedule:LRScheduleConfig"


@dataclass(frozen=True, kw_only=True)
class MemoryDescriptor(Descriptor):
    """A memory system that a model or a pipeline can write to and query."""

    kind: ClassVar[str] = "memory"
    contract: ClassVar[str | None] = "helix_core.kinds.memory:Memory"
    config_contract: ClassVar[str | None] = "helix_core.kinds.memory:MemoryConfig"


@dataclass(frozen=True, kw_only=True)
class GeneratorDescriptor(Descriptor):
    """A generator of synthetic data (`helix_core.kinds.generator.Generator`); `TokenGenerator`s provide "tokens"."""

    kind: ClassVar[str] = "generator"
    contract: ClassVar[str | None] = "helix_core.kinds.generator:Generator"
    config_contract: ClassVar[str | None] = "helix_core.kinds.generator:GeneratorConfig"


@dataclass(frozen=True, kw_only=True)
class CommandDescriptor(Descriptor):
    """A subcommand of the `helix` command line; `target` is a click command."""

    kind: ClassVar[str] = "command"
    contract: ClassVar[str | None] = "click:Command"
    built: ClassVar[bool] = False


DESCRIPTORS: tuple[type[Descriptor], ...] = (
    BackendDescriptor,
    KernelDescriptor,
    LayerDescriptor,
    OptimizerDescriptor,
    LRScheduleDescriptor,
    MemoryDescriptor,
    GeneratorDescriptor,
    CommandDescriptor,
)

KINDS: tuple[str, ...] = tuple(cls.kind for cls in DESCRIPTORS)
