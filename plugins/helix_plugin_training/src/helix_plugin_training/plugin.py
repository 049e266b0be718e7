"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import CommandDescriptor, LRScheduleDescriptor, OptimizerDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"


@hookimpl
def helix_commands() -> Sequence[CommandDescriptor]:
    return [
        CommandDescriptor(
            name="train",
            target="helix_plugin_training.commands.train:command",
            summary="Carry out a recipe, or go on with a run.",
        ),
        CommandDescriptor(
            name="eval",
            target="helix_plugin_training.commands.eval:command",
            summary="Bits per byte of a trained run on any files.",
        ),
    ]


@hookimpl
def helix_optimizers() -> Sequence[OptimizerDescriptor]:
    return [
        OptimizerDescriptor(
            name=name,
            target=f"helix_plugin_training.optimizers.{name}:{cls}",
            config=f"helix_plugin_training.optimizers.{name}:{cls}Config",
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
            target=f"helix_plugin_training.lr_schedules.{name}:{cls}",
            config=f"helix_plugin_training.lr_schedules.{config}",
            summary=summary,
            priority=priority,
        )
        for name, cls, config, summary, priority in (
            ("constant", "Constant", "constant:LRScheduleConfig", "warm-up, then the peak rate", 0),
            ("linear", "Linear", "linear:LinearConfig", "warm-up, then a straight line down", 0),
            ("cosine", "Cosine", "cosine:CosineConfig", "warm-up, then half a cosine down", 10),
            ("wsd", "WSD", "wsd:WSDConfig", "warm-up, stable, then decay over the last steps", 0),
        )
    ]
