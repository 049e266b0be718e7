"""What a run measures on its held-out data, for either kind of data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helix_plugin_training.data import Task
from helix_plugin_training.data.corpus import Document
from helix_plugin_training.evaluation.answers import evaluate_task
from helix_plugin_training.evaluation.text import evaluate, gzip_bits_per_byte

if TYPE_CHECKING:
    from helix_plugin_training.trainer import Trainer


def measure(
    trainer: Trainer, *, limited: bool = False, progress: Callable[[int], None] | None = None
) -> dict[str, float]:
    """Bits per byte of files, or a task's accuracy; `limited`: of training.eval_bytes only, where data are files."""
    parts = trainer.model, trainer.backend, trainer.F_infer, trainer.params
    if isinstance(trainer.data, Task):
        task = evaluate_task(*parts, trainer.data, progress=progress)
        return {
            "val_accuracy": task.accuracy,
            "val_solved": task.solved_share,
            "val_bits_per_token": task.bits_per_token,
        }
    documents = trainer.data.validation
    if limited:
        documents = _first_documents(documents, trainer.recipe.training.eval_bytes)
    found = evaluate(*parts, documents, tokenizer=trainer.tokenizer, progress=progress)
    bits = {"val_bits_per_byte": found.bits_per_byte}
    return bits | ({"val_bits_per_token": found.bits_per_token} if trainer.data.unit == "token" else {})


def describe_data(data: Any) -> dict[str, float]:
    """What the summary says about the held-out data themselves."""
    if isinstance(data, Task):
        return {"val_samples": data.validation}
    return {
        "gzip_bits_per_byte": gzip_bits_per_byte(data.validation),
        "val_bytes": data.validation_bytes,
        "val_documents": len(data.validation),
    }


def size(data: Any) -> tuple[int, str]:
    """How much there is to measure on, and of what."""
    return (data.validation, "samples") if isinstance(data, Task) else (data.validation_bytes, "bytes")


def describe(found: dict[str, float]) -> str:
    """A measurement for a line of progress."""
    if "val_accuracy" in found:
        return f"accuracy {found['val_accuracy']:.4f}, {found['val_bits_per_token']:.4f} bits/token"
    return f"{found['val_bits_per_byte']:.4f} bits/byte"


def _first_documents(documents: tuple[Document, ...], limit: int | None) -> tuple[Document, ...]:
    """Documents in order until `limit` bytes are reached, at least one."""
    taken: list[Document] = []
    total = 0
    for document in documents:
        if limit is not None and taken and total + len(document) > limit:
            continue
        taken.append(document)
        total += len(document)
    return tuple(taken)
