"""What core itself provides, through the same hooks as every plugin: the reference backend, optimizers, schedules."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.descriptors import BackendDescriptor, LRScheduleDescriptor, OptimizerDescriptor
from helix_core.hookspecs import hookimpl


@hookimpl
def helix_backends() -> Sequence[BackendDescriptor]:
    return [
        BackendDescriptor(
            name="reference",
            target="helix_core.backends.reference:ReferenceBackend",
            summary="NumPy and every op's own definition: the oracle; no gradients, never fast",
            provides=("float64",),
            priority=-100,
        )
    ]


@hookimpl
def helix_optimizers() -> Sequence[OptimizerDescriptor]:
    return [
        OptimizerDescriptor(
            name=name,
            target=f"helix_core.optimizers.{name}:{cls}",
            config=f"helix_core.optimizers.{name}:{cls}Config",
            summary=summary,
            priority=priority,
        )
        for name, cls, summary, priority in (
            ("adamw", "AdamW", "Adam with decoupled weight decay", 10),
            ("lion", "Lion", "sign of an interpolated momentum; half of Adam's memory", 0),
            ("sgd", "SGD", "gradient descent with heavy-ball or Nesterov momentum", 0),
        )
    ]


@hookimpl
def helix_lr_schedules() -> Sequence[LRScheduleDescriptor]:
    return [
        LRScheduleDescriptor(
            name=name,
            target=f"helix_core.schedules.{name}:{cls}",
            config=f"helix_core.schedules.{config}",
            summary=summary,
            priority=priority,
        )
        for name, cls, config, summary, priority in (
            ("constant", "Constant", "base:ScheduleConfig", "warm-up, then the peak rate", 0),
            ("linear", "Linear", "linear:LinearConfig", "warm-up, then a straight line down", 0),
            ("cosine", "Cosine", "cosine:CosineConfig", "warm-up, then half a cosine down", 10),
            ("wsd", "WSD", "wsd:WSDConfig", "warm-up, stable, then decay over the last steps", 0),
        )
    ]
