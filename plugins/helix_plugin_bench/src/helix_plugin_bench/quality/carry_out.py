"""Carry out a row: train, answer held-out samples, answer longer ones."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from helix_core.cli.progress import Progress
from helix_core.errors import TrainingError
from helix_core.kinds.component import ComponentConfig
from helix_plugin_bench.quality.rows import Row
from helix_plugin_training import Trainer, gzip_bits_per_byte, load_data
from helix_plugin_training.data import Task, load_task
from helix_plugin_training.evaluation.held_out import measure

CHUNK = 4096
LOOK_EVERY = 250
TOKENS_AT_ONCE = 2**16
ROWS_AT_ONCE = 32  # attention's cache has room for its longest document in every row


def carry_out(row: Row, seed: int) -> dict[str, Any]:
    """The row's results: its score, learning rate, steps, seconds, parameters and what they depend on.

    Raises TrainingError if the loss is not finite at every learning rate.
    """
    tried: dict[str, float | None] = {}
    runs: list[dict[str, Any]] = []
    for rate in row.rates:
        try:
            runs.append(_train(row, rate, seed))
        except TrainingError:
            tried[f"{rate:g}"] = None
            if not runs and rate == row.rates[-1]:
                raise
            continue
        tried[f"{rate:g}"] = runs[-1].get("accuracy", runs[-1].get("bits_per_byte"))
        if runs[-1].get("accuracy", 0.0) >= 0.999:
            break
    best = max(runs, key=lambda run: run["accuracy"] if "accuracy" in run else -run["bits_per_byte"])
    return {"row": row.name, "task": row.task, "setting": row.setting, "model": row.model, **best, "rates": tried}


def _train(row: Row, rate: float, seed: int) -> dict[str, Any]:
    recipe = row.recipe(rate, seed)
    trainer = Trainer(recipe, load_data(recipe))
    trainer.measure_step()  # compiles kernels, which is not part of the row's time
    wall, cpu = time.perf_counter(), time.process_time()
    with Progress(row.steps, label=row.name) as progress:
        for _ in range(row.steps):
            result = trainer.advance(row.steps)
            progress.update(trainer.step, f"loss {result.loss:.4f}")
            if row.enough is None or trainer.step % LOOK_EVERY:
                continue
            if measure(trainer, limited=True)["val_accuracy"] >= row.enough:
                break
    found: dict[str, Any] = {
        "seed": seed,
        "rate": rate,
        "steps": trainer.step,
        "batch_size": row.batch_size,
        "seq_len": row.seq_len,
        "d_model": recipe.model.d_model,
        "n_layers": recipe.model.n_layers,
        "mixer": recipe.model.mixer[0].model_dump(),
        "parameters": trainer.parameters,
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }
    score = measure(trainer, limited=True)
    if isinstance(trainer.data, Task):
        found |= {"accuracy": round(score["val_accuracy"], 4), "samples": trainer.data.validation}
        if row.lengths:
            found["at_length"] = {str(n): answers(trainer, row, n, seed) for n in row.lengths}
    else:
        found |= {
            "bits_per_byte": round(score["val_bits_per_byte"], 4),
            "gzip_bits_per_byte": round(gzip_bits_per_byte(trainer.data.validation), 4),
            "train_bytes": trainer.step * trainer.tokens_per_step,
        }
    return {**found, "environment": _environment(trainer)}


def answers(trainer: Trainer, row: Row, length: int, seed: int) -> dict[str, float]:
    """Accuracy at another length, where the last token of a sample alone is scored.

    Samples go through the model in chunks with their state carried on, so memory does not grow with the length.
    """
    component = ComponentConfig.model_validate({**row.data["generator"], "seq_len": length})
    samples = 500 if length <= 2**12 else 128
    task = load_task(component, seed=seed, train=None, validation=samples)
    right = 0
    model, backend, F = trainer.model, trainer.backend, trainer.F_infer
    with backend.inference():
        for batch in task.held_out(min(ROWS_AT_ONCE, max(1, TOKENS_AT_ONCE // length))):
            state: Any = model.init_state(F, len(batch.tokens))
            for start in range(0, length, CHUNK):
                piece = backend.asarray(np.ascontiguousarray(batch.tokens[:, start : start + CHUNK]))
                logits, state = model.apply(F, trainer.params, piece, state=state, last=True)
            said = backend.to_numpy(F.xp.argmax(logits, axis=-1))[:, 0]
            right += int((said == batch.targets[:, -1]).sum())
    return {"accuracy": round(right / samples, 4), "samples": samples}


def _environment(trainer: Trainer) -> dict[str, Any]:
    import platform

    import helix_core

    return {
        **trainer.backend.describe(),
        "backend": trainer.backend.name,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "helix_core": helix_core.__version__,
    }
