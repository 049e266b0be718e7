"""How many of a task's held-out answers a model gets right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_plugin_training.data import Batch, Task
from helix_plugin_training.evaluation.text import check_bits

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable
    from helix_plugin_lm.models.language_model import LanguageModel

ROWS = 16


@dataclass(frozen=True)
class TaskEvaluation:
    """Over the held-out samples: scored tokens, those right, samples, those right throughout, bits of all targets."""

    tokens: int
    right: int
    samples: int
    solved: int
    bits: float

    @property
    def accuracy(self) -> float:
        """Share of the scored tokens that were right."""
        return self.right / self.tokens

    @property
    def solved_share(self) -> float:
        """Share of the samples of which every scored token was right."""
        return self.solved / self.samples

    @property
    def bits_per_token(self) -> float:
        """The mean loss of a token in bits."""
        return self.bits / self.tokens


def predict(
    model: LanguageModel, backend: Backend, F: OpTable, params: Mapping[str, Any], batch: Batch
) -> tuple[np.ndarray, np.ndarray]:
    """The most likely token at every place, and the nats of the target there: (B, L) each."""
    with backend.inference():
        logits, _ = model.apply(F, params, backend.asarray(batch.tokens))
        nats = F.cross_entropy(logits, backend.asarray(batch.targets))
        return backend.to_numpy(F.xp.argmax(logits, axis=-1)), backend.to_numpy(nats)


def evaluate_task(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    task: Task,
    *,
    progress: Callable[[int], None] | None = None,
) -> TaskEvaluation:
    """Answer every held-out sample; F should be bound with mode "infer".

    `progress` is called with the number of samples of each finished portion. Raises EvaluationError if the bits are not
    finite.
    """
    tokens = right = solved = 0
    nats_in_all = 0.0
    for batch in task.held_out(ROWS):
        assert batch.mask is not None  # a task's batches have one
        said, nats = predict(model, backend, F, params, batch)
        wrong = batch.mask & (said != batch.targets)
        tokens += int(batch.mask.sum())
        right += int(batch.mask.sum() - wrong.sum())
        solved += int((~wrong.any(axis=1)).sum())
        nats_in_all += float(np.sum(nats, where=batch.mask, dtype=np.float64))
        if progress:
            progress(len(wrong))
    check_bits(nats_in_all)
    return TaskEvaluation(tokens, right, task.validation, solved, nats_in_all / math.log(2))


def show_answers(batch: Batch, said: np.ndarray) -> str:
    """Samples as text: what was read, what was due and what the model said."""
    assert batch.mask is not None
    lines = []
    for tokens, targets, mask, answers in zip(batch.tokens, batch.targets, batch.mask, said, strict=True):
        right = int(np.sum(targets[mask] == answers[mask]))
        rows = {"read": tokens, "due ": targets[mask], "said": answers[mask]}
        lines += [f"{right} of {mask.sum()} right", *(f"  {k} {' '.join(map(str, v))}" for k, v in rows.items())]
    return "\n".join(lines) + "\n"
