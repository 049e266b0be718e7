"""Level 5: a model learns here, and its weights mean the same elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from helix_core.kinds.backend import Backend
from helix_core.plugin_system import create
from helix_plugin_lm.models import loss
from helix_testing.levels.base import assert_close, require
from helix_testing.levels.tiny import TinyModel


class TrainLevel:
    """Overfitting, and checkpoints that travel."""

    def test_it_overfits(self, backend_instance: Backend, rng: np.random.Generator) -> None:
        require(backend_instance, "grad")
        losses, _ = overfit(backend_instance, rng.integers(16, size=(2, 17)), steps=150)
        assert losses[-1] < 0.1 * losses[0], f"loss went from {losses[0]:.3f} to {losses[-1]:.3f} only"

    def test_weights_travel_to_the_reference_and_back(
        self, backend_instance: Backend, rng: np.random.Generator, tmp_path: Path
    ) -> None:
        require(backend_instance, "grad")
        tokens = rng.integers(16, size=(2, 17))
        _, params = overfit(backend_instance, tokens, steps=5)
        save_file({k: backend_instance.to_numpy(p) for k, p in params.items()}, tmp_path / "w.safetensors")
        saved = load_file(tmp_path / "w.safetensors")
        reference = create("backend", "core/reference")
        there = logits(reference, saved, tokens, "float64")
        assert_close(logits(backend_instance, saved, tokens, "float32"), there, 1e-5, "logits of the loaded weights")
        here = logits(backend_instance, {k: v.copy() for k, v in saved.items()}, tokens, "float32")
        assert np.array_equal(here, logits(backend_instance, saved, tokens, "float32"))


def overfit(backend: Backend, tokens: np.ndarray, steps: int) -> tuple[list[float], dict[str, Any]]:
    """Train the tiny model on one batch with AdamW; the losses and the final parameters."""
    model, F, update = TinyModel(), backend.bind(mode="train"), backend.bind(mode="infer")
    optimizer = create("optimizer", "training/adamw", lr=1e-2, weight_decay=0.0)
    params = {k: backend.asarray(v, "float32") for k, v in model.init(0).items()}
    state = optimizer.init(F, params)
    x, y = backend.asarray(tokens[:, :-1].copy()), backend.asarray(tokens[:, 1:].copy())
    value_and_grad = backend.value_and_grad(lambda p: loss(model, F, p, x, y))
    losses = []
    for step in range(1, steps + 1):
        value, grads = value_and_grad(params)
        losses.append(float(value))
        with backend.inference():
            params, state = optimizer.update(update, params, grads, state, lr=1e-2, step=step)
    return losses, params


def logits(backend: Backend, params: dict[str, np.ndarray], tokens: np.ndarray, dtype: str) -> np.ndarray:
    """The tiny model's logits."""
    with backend.inference():
        F = backend.bind(dtype=dtype, mode="infer")
        on_backend = {k: backend.asarray(v, dtype) for k, v in params.items()}
        return backend.to_numpy(TinyModel().apply(F, on_backend, backend.asarray(tokens))[0])
