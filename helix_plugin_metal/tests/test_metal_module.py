"""Helix models as mlx.nn modules: names, MLX's optimizers, freezing, weights, states."""

from __future__ import annotations

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from helix_core import create
from helix_plugin_lm.models import LanguageModel, ModelConfig


@pytest.fixture(scope="module")
def backend():
    return create("backend", "metal")


@pytest.fixture(scope="module")
def model():
    return LanguageModel(ModelConfig(vocab_size=16, d_model=12, n_layers=2, mixer={"name": "mamba", "d_state": 4}))


@pytest.fixture
def tokens(rng):
    return mx.array(rng.integers(16, size=(2, 13)))


def objective(module, x, y):
    return nn.losses.cross_entropy(module(x), y, reduction="mean")


def test_parameters_have_the_helix_names_and_values(backend, model):
    module, expected = backend.module(model, seed=5), model.init(5)
    found = dict(tree_flatten(module.trainable_parameters()))
    assert set(found) == set(expected)
    assert all(np.array_equal(np.array(found[name]), value) for name, value in expected.items())
    assert all(np.array_equal(module.to_numpy()[name], value) for name, value in expected.items())


@pytest.mark.parametrize("compiled", [False, True])
def test_it_trains_with_an_mlx_optimizer(backend, model, tokens, compiled):
    module, optimizer = backend.module(model), optim.AdamW(learning_rate=1e-2)
    step = nn.value_and_grad(module, objective)

    def update(x, y):
        loss, grads = step(module, x, y)
        optimizer.update(module, grads)
        return loss

    state = [module.state, optimizer.state]
    run = mx.compile(update, inputs=state, outputs=state) if compiled else update
    losses = []
    for _ in range(40):
        losses.append(run(tokens[:, :-1], tokens[:, 1:]).item())
        mx.eval(state)
    assert losses[-1] < 0.3 * losses[0]


def test_frozen_parameters_have_no_gradient(backend, model, tokens):
    module = backend.module(model)
    module.embedding.freeze()
    _, grads = nn.value_and_grad(module, objective)(module, tokens[:, :-1], tokens[:, 1:])
    names = {name for name, _ in tree_flatten(grads)}
    assert names == set(model.param_specs()) - {"embedding.weight"}


def test_weights_can_be_saved_and_loaded(backend, model, tokens, tmp_path):
    first, second = backend.module(model, seed=1), backend.module(model, seed=2)
    first.save_weights(str(tmp_path / "w.safetensors"))
    second.load_weights(str(tmp_path / "w.safetensors"))
    assert mx.array_equal(first(tokens), second(tokens))


def test_a_state_goes_in_and_out(backend, model, tokens):
    module = backend.module(model)
    state, parts = module.init_state(2), []
    for t in range(13):
        logits, state = module(tokens[:, t : t + 1], state=state)
        parts.append(logits)
    assert mx.allclose(mx.concatenate(parts, axis=1), module(tokens), atol=1e-5)


def test_a_single_layer_is_a_module_too(backend):
    layer = create("layer", "mamba", d_model=8)
    module = backend.module(layer)
    assert module(mx.zeros((2, 5, 8))).shape == (2, 5, 8)
    assert {name for name, _ in tree_flatten(module.parameters())} == set(layer.param_specs())


def test_fresh_weights_are_mlxs_to_draw(backend):
    layer = create("layer", "mingru", d_model=8)

    def drawn(**options):
        return np.concatenate([value.ravel() for value in backend.module(layer, **options).to_numpy().values()])

    mx.random.seed(3)
    first, second = drawn(), drawn()
    mx.random.seed(3)
    assert np.array_equal(drawn(), first)
    assert not np.array_equal(first, second)
    assert np.array_equal(drawn(seed=5), drawn(seed=5))
