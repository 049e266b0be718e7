"""Whole models: the same logits, texts and training as on the backends that the others are compared with."""

import numpy as np
import pytest

from helix_core import create
from helix_plugin_lm.generation import Sampling, Stopping, generate
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss

PROMPT = b"def main("


def model_of(mixer):
    return LanguageModel(ModelConfig.model_validate({"d_model": 32, "n_layers": 2, "mixer": mixer}))


def parameters(backend, model):
    return {k: backend.asarray(v, "float32") for k, v in model.init(3).items()}


def outcome(name, model, max_bytes):
    backend = create("backend", name)
    F, params = backend.bind(mode="infer"), parameters(backend, model)
    tokens = backend.asarray(np.frombuffer(PROMPT, np.uint8).astype(np.int64)[None])
    with backend.inference():
        logits = backend.to_numpy(model.apply(F, params, tokens)[0]).astype(np.float64)
    stopping = Stopping(max_bytes=max_bytes)
    text = b"".join(generate(model, backend, F, params, PROMPT, sampling=Sampling(temperature=0), stopping=stopping))
    return logits, text


def curve(name, model, steps):
    backend = create("backend", name)
    F, update, params = backend.bind(mode="train"), backend.bind(mode="infer"), parameters(backend, model)
    tokens = np.random.default_rng(1).integers(256, size=(2, 25))
    x, y = backend.asarray(tokens[:, :-1].copy()), backend.asarray(tokens[:, 1:].copy())
    optimizer = create("optimizer", "training/adamw", lr=1e-2, weight_decay=0.0)
    state, losses = optimizer.init(F, params), []
    step_of = backend.value_and_grad(lambda p: loss(model, F, p, x, y))
    for step in range(1, steps + 1):
        value, grads = step_of(params)
        losses.append(float(value))
        with backend.inference():
            params, state = optimizer.update(update, params, grads, state, lr=1e-2, step=step)
    return losses


MIXERS = [
    {"name": "mamba"},
    {"name": "mamba2", "head_dim": 16},
    {"name": "mamba3", "head_dim": 16, "d_state": 16, "mimo_rank": 2},
    {"name": "gla", "n_heads": 2},
    {"name": "gated_deltanet", "n_heads": 2},
    {"name": "mingru"},
    {"name": "rwkv7", "head_dim": 16},
]


@pytest.mark.parametrize(
    "mixer", [pytest.param(m, marks=[pytest.mark.slow] if m["name"] != "mamba" else [], id=m["name"]) for m in MIXERS]
)
def test_logits_and_texts_are_the_references(mixer):
    model = model_of(mixer)
    expected, text = outcome("core/reference", model, 12)
    found, ours = outcome("cuda", model, 12)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert ours == text


@pytest.mark.slow
@pytest.mark.parametrize("mixer", MIXERS, ids=lambda m: m["name"])
def test_training_is_that_of_the_cpu(mixer):
    pytest.importorskip("helix_plugin_cpu")
    model = model_of(mixer)
    expected, found = curve("cpu", model, 5), curve("cuda", model, 5)
    assert expected[-1] < expected[0]
    assert found == pytest.approx(expected, rel=1e-3)
