"""A task: a generator's samples as training and held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import ConfigError
from helix_core.kinds.generator import TokenGenerator, digest
from helix_plugin_training.data.batches import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_core.kinds.component import ComponentConfig

HELD_OUT = 2**62
"""Held-out samples have the indices from here on, training samples those below."""

_FIELDS = ("inputs", "targets", "mask")


@dataclass(frozen=True)
class Task:
    """Samples of a generator under one seed.

    train        number of different training samples; None: never the same one again
    validation   number of held-out samples
    """

    generator: TokenGenerator[Any]
    seed: int
    train: int | None
    validation: int
    fingerprint: str

    unit = "token"

    def held_out(self, rows: int) -> Iterator[Batch]:
        """The held-out samples in order, `rows` at a time."""
        for start in range(0, self.validation, rows):
            stop = min(start + rows, self.validation)
            yield self.batch(range(HELD_OUT + start, HELD_OUT + stop))

    def batch(self, indices: Any) -> Batch:
        """The samples of these indices. Each is a document of its own, so nothing is reset within a row."""
        rows = self.generator.batch(self.seed, indices, _FIELDS)
        return Batch(rows["inputs"], rows["targets"], np.zeros_like(rows["mask"]), rows["mask"])


class TaskBatches:
    """Batches of training samples drawn at random: a pure function of the run's seed and step."""

    def __init__(self, task: Task, *, batch_size: int, seed: int) -> None:
        self.task, self.batch_size, self.seed = task, batch_size, seed

    def __call__(self, step: int, part: int = 0) -> Batch:
        """The batch of an optimizer step's micro-batch `part`."""
        bits = np.random.Philox(key=self.seed, counter=[0, 0, part, step])
        indices = np.random.Generator(bits).integers(self.task.train or HELD_OUT, size=self.batch_size)
        return self.task.batch(indices)


def load_task(component: ComponentConfig, *, seed: int, train: int | None, validation: int) -> Task:
    """A task from a generator's name and options.

    Raises what `create` raises, and ConfigError if the generator's samples are not tokens that a model can learn from.
    """
    from helix_core.plugin_system import components, create, select

    chosen = select("generator", component.name).chosen
    if "tokens" not in chosen.descriptor.provides:
        able = sorted(c.name for c in components("generator") if "tokens" in c.descriptor.provides)
        raise ConfigError(
            f"generator {component.name!r} makes no tokens that a model can be trained on",
            hint=f"those that do: {', '.join(able)}; `helix data generate` writes any generator's samples to files",
        )
    generator: TokenGenerator[Any] = create("generator", chosen.full_name, **component.options)
    looked_at = [generator.sample(seed, start + i) for start in (0, HELD_OUT) for i in range(8)]
    return Task(generator, seed, train, validation, digest(looked_at))
