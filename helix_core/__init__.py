"""Helix: sequence models beyond the transformer, defined once and run on whatever hardware is there.

Everything here is imported on first use, so that `import helix_core` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_core.lazy import lazy_attributes
from helix_core.version import __version__

_WHERE = {
    "helix_core.errors": (
        "AmbiguousComponent",
        "CheckpointError",
        "ComponentNotFound",
        "ComponentUnavailable",
        "ConfigError",
        "DataError",
        "EvaluationError",
        "HelixError",
        "InUse",
        "Interrupted",
        "MemoryStoreError",
        "PluginError",
        "TrainingError",
        "UsageError",
    ),
    "helix_core.kinds.backend": ("Backend",),
    "helix_core.kinds.kernel": ("Kernel",),
    "helix_core.kinds.layer": ("Layer", "LayerConfig"),
    "helix_core.kinds.lr_schedule": ("LRSchedule", "LRScheduleConfig"),
    "helix_core.kinds.memory": ("Hits", "Memory", "MemoryConfig"),
    "helix_core.kinds.optimizer": ("Optimizer", "OptimizerConfig"),
    "helix_core.kinds.params": ("ParamSpec",),
    "helix_core.plugin_system": ("HelixWarning", "components", "create", "explain", "plugins", "select"),
    "helix_core.plugin_system.descriptors": (
        "PLUGIN_API",
        "Availability",
        "BackendDescriptor",
        "CommandDescriptor",
        "Descriptor",
        "GeneratorDescriptor",
        "KernelDescriptor",
        "LRScheduleDescriptor",
        "LayerDescriptor",
        "MemoryDescriptor",
        "OptimizerDescriptor",
    ),
    "helix_core.events": ("Event", "emit", "subscribe"),
    "helix_core.plugin_system.hookspecs": ("hookimpl",),
}
_HOMES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *_HOMES]
__getattr__, __dir__ = lazy_attributes(__name__, _HOMES)

if TYPE_CHECKING:
    from helix_core.errors import AmbiguousComponent as AmbiguousComponent
    from helix_core.errors import CheckpointError as CheckpointError
    from helix_core.errors import ComponentNotFound as ComponentNotFound
    from helix_core.errors import ComponentUnavailable as ComponentUnavailable
    from helix_core.errors import ConfigError as ConfigError
    from helix_core.errors import DataError as DataError
    from helix_core.errors import EvaluationError as EvaluationError
    from helix_core.errors import HelixError as HelixError
    from helix_core.errors import Interrupted as Interrupted
    from helix_core.errors import InUse as InUse
    from helix_core.errors import MemoryStoreError as MemoryStoreError
    from helix_core.errors import PluginError as PluginError
    from helix_core.errors import TrainingError as TrainingError
    from helix_core.errors import UsageError as UsageError
    from helix_core.events import Event as Event
    from helix_core.events import emit as emit
    from helix_core.events import subscribe as subscribe
    from helix_core.kinds.backend import Backend as Backend
    from helix_core.kinds.kernel import Kernel as Kernel
    from helix_core.kinds.layer import Layer as Layer
    from helix_core.kinds.layer import LayerConfig as LayerConfig
    from helix_core.kinds.lr_schedule import LRSchedule as LRSchedule
    from helix_core.kinds.lr_schedule import LRScheduleConfig as LRScheduleConfig
    from helix_core.kinds.memory import Hits as Hits
    from helix_core.kinds.memory import Memory as Memory
    from helix_core.kinds.memory import MemoryConfig as MemoryConfig
    from helix_core.kinds.optimizer import Optimizer as Optimizer
    from helix_core.kinds.optimizer import OptimizerConfig as OptimizerConfig
    from helix_core.kinds.params import ParamSpec as ParamSpec
    from helix_core.plugin_system import HelixWarning as HelixWarning
    from helix_core.plugin_system import components as components
    from helix_core.plugin_system import create as create
    from helix_core.plugin_system import explain as explain
    from helix_core.plugin_system import plugins as plugins
    from helix_core.plugin_system import select as select
    from helix_core.plugin_system.descriptors import PLUGIN_API as PLUGIN_API
    from helix_core.plugin_system.descriptors import Availability as Availability
    from helix_core.plugin_system.descriptors import BackendDescriptor as BackendDescriptor
    from helix_core.plugin_system.descriptors import CommandDescriptor as CommandDescriptor
    from helix_core.plugin_system.descriptors import Descriptor as Descriptor
    from helix_core.plugin_system.descriptors import GeneratorDescriptor as GeneratorDescriptor
    from helix_core.plugin_system.descriptors import KernelDescriptor as KernelDescriptor
    from helix_core.plugin_system.descriptors import LayerDescriptor as LayerDescriptor
    from helix_core.plugin_system.descriptors import LRScheduleDescriptor as LRScheduleDescriptor
    from helix_core.plugin_system.descriptors import MemoryDescriptor as MemoryDescriptor
    from helix_core.plugin_system.descriptors import OptimizerDescriptor as OptimizerDescriptor
    from helix_core.plugin_system.hookspecs import hookimpl as hookimpl
