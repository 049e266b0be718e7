"""Reversible models: they run backwards, and their gradient is the model's own."""

import numpy as np
import pytest

import helix_core
from helix_core.errors import ConfigError
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
from helix_plugin_training import Trainer
from helix_plugin_training.data import load_corpus
from helix_plugin_training.recipes import parse_recipe
from helix_plugin_training.reversible import reversible_value_and_grad

CONFIG = {
    "vocab_size": 32,
    "d_model": 8,
    "n_layers": 5,
    "mixer": [{"name": "mamba", "d_state": 4}, {"name": "mingru"}],
    "mlp": {"name": "mingru"},
    "reversible": True,
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.3, "stochastic_depth": 0.3},
        {"tie_embeddings": False, "norm": "layer_norm"},
        {"embedding_norm": True, "norm": "zero_centered_rms_norm"},
        {"embedding_norm": True, "norm": "layer_norm", "tie_embeddings": False},
    ],
)
@pytest.mark.parametrize("scored", [False, True], ids=["all", "some"])
def test_the_gradient_is_the_models_own(dtype, options, scored):
    backend = helix_core.create("backend", "cpu")
    model = LanguageModel(ModelConfig.model_validate(CONFIG | options))
    F, F_infer = backend.bind(dtype=dtype, mode="train"), backend.bind(dtype=dtype, mode="infer")
    params = {k: backend.asarray(v, dtype) for k, v in model.init(0).items()}
    rng = np.random.default_rng(0)
    tokens, targets = (backend.asarray(rng.integers(32, size=(3, 11))) for _ in range(2))
    reset = backend.asarray(rng.random((3, 11)) < 0.2)
    weights = backend.asarray(rng.random((3, 11)), dtype) if scored else None
    key = backend.asarray(np.array([5])) if model.random else None
    value, grads = reversible_value_and_grad(backend, model, F, F_infer)(params, tokens, targets, reset, weights, key)
    expected, wanted = backend.value_and_grad(
        lambda p: loss(model, F, p, tokens, targets, reset=reset, weights=weights, key=key)
    )(params)
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    assert float(value) == pytest.approx(float(expected), rel=tolerance)
    assert list(grads) == list(wanted)
    for name, grad in wanted.items():
        scale = float(abs(grad).max())
        assert float(abs(grads[name] - grad).max()) <= tolerance * scale, name


def test_a_block_inverts():
    F = helix_core.create("backend", "reference").bind(dtype="float64")
    model = LanguageModel(ModelConfig.model_validate(CONFIG))
    params = {k: v.astype(np.float64) for k, v in model.init(0).items()}
    first, second = np.random.default_rng(0).normal(size=(2, 3, 7, 8))
    there = model.run_block(F, params, 2, first, second)[:2]
    assert not np.allclose(there[0], first)
    for found, expected in zip(model.invert_block(F, params, 2, *there), (first, second), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_both_faces_of_a_reversible_model_agree():
    backend = helix_core.create("backend", "cpu")
    F = backend.bind(mode="infer")
    model = LanguageModel(ModelConfig.model_validate(CONFIG))
    params = {k: backend.asarray(v) for k, v in model.init(0).items()}
    tokens = np.random.default_rng(0).integers(32, size=(2, 9))
    whole = backend.to_numpy(model.apply(F, params, backend.asarray(tokens))[0])
    decoder = backend.decoder(model, F, params, batch=2)
    np.testing.assert_allclose(np.stack([decoder.step(tokens[:, t]) for t in range(9)], 1), whole, atol=2e-5)


def test_the_trainer_learns_with_it(tmp_path):
    (tmp_path / "text.txt").write_text("all work and no play makes jack a dull boy. " * 60)
    recipe = """
name = "t"
[model]
d_model = 16
n_layers = 3
mixer = { name = "mamba", d_state = 4 }
mlp = { name = "mingru" }
reversible = true
[training]
steps = 60
batch_size = 4
seq_len = 32
[optimizer]
name = "adamw"
lr = 1e-2
[backend]
name = "cpu"
"""
    trainer = Trainer(parse_recipe(recipe, "r.toml", ()), load_corpus(str(tmp_path), 0.3))
    losses = [trainer.advance(60).loss for _ in range(60)]
    assert losses[-1] < 0.4 * losses[0]


def test_a_block_of_one_part_is_refused():
    with pytest.raises(ConfigError, match="give an mlp too"):
        parse_recipe(
            'name = "t"\n[model]\nd_model = 8\nn_layers = 1\nmixer = { name = "mamba" }\nreversible = true\n'
            "[training]\nsteps = 1\n",
            "r.toml",
            (),
        )
