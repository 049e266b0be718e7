"""Recorded steps are the model's own, cost two transfers a token, and states go in and out unharmed."""

from __future__ import annotations

import numpy as np
import pytest

from helix_core import create
from helix_core.plugin_system import explain
from helix_core.tree import tree_items
from helix_plugin_lm.models import LanguageModel, ModelConfig

BACKENDS = ("opencl", "webgpu")
MODELS = {
    "mamba": {"name": "mamba", "d_state": 4},
    "mingru": {"name": "mingru"},
    "attention": {"name": "attention", "n_heads": 2, "max_length": 12},
}


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    selection = explain("backend", request.param)
    if selection.component is None:
        pytest.skip(f"{request.param} cannot be used here: {selection.error}")
    return create("backend", request.param)


def built(backend, mixer):
    model = LanguageModel(ModelConfig(vocab_size=16, d_model=16, n_layers=2, mixer=MODELS[mixer]))
    values = model.init(0)
    values["embedding.weight"] = values["embedding.weight"] * 50
    return model, backend.bind(mode="infer"), {name: backend.asarray(v, "float32") for name, v in values.items()}


@pytest.mark.parametrize("mixer", MODELS)
def test_steps_are_the_models_own(backend, mixer, rng):
    model, F, params = built(backend, mixer)
    tokens = rng.integers(16, size=(2, 10))
    expected = backend.to_numpy(model.apply(F, params, backend.asarray(tokens))[0])
    decoder = backend.decoder(model, F, params, batch=2)
    found = np.stack([decoder.step(tokens[:, t]) for t in range(10)], axis=1)
    assert np.allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_two_transfers_a_token_and_nothing_compiled(backend):
    model, F, params = built(backend, "mamba")
    decoder = backend.decoder(model, F, params, batch=2)
    decoder.step(np.array([1, 2]))
    before = backend.transfers()
    for _ in range(5):
        decoder.step(np.array([3, 4]))
    after = backend.transfers()
    assert {name: after[name] - before[name] for name in ("uploads", "downloads", "programs")} == {
        "uploads": 5,
        "downloads": 5,
        "programs": 0,
    }
    assert after["uploaded_bytes"] - before["uploaded_bytes"] == 5 * 2 * 4


def test_states_go_in_and_out(backend, rng):
    model, F, params = built(backend, "mamba")
    _, state = model.apply(F, params, backend.asarray(rng.integers(16, size=(3, 5))), state=model.init_state(F, 3))
    decoder = backend.decoder(model, F, params, batch=3)
    decoder.load(state)
    first = [decoder.step(np.array([1, 2, 3])) for _ in range(3)][-1]
    kept = {name: backend.to_numpy(a).copy() for name, a in tree_items(decoder.state())}
    saved = decoder.state()
    ahead = decoder.step(np.array([4, 5, 6]))
    assert all(np.array_equal(backend.to_numpy(a), kept[name]) for name, a in tree_items(saved)), "a copy stays"
    decoder.load(saved)
    assert np.array_equal(ahead, decoder.step(np.array([4, 5, 6])))
    decoder.load(state)  # the steps before have not used it up
    assert np.array_equal(first, [decoder.step(np.array([1, 2, 3])) for _ in range(3)][-1])
    decoder.load(saved)
    decoder.reorder([2, 0, 0])
    assert np.allclose(decoder.step(np.array([6, 4, 4])), ahead[[2, 0, 0]], atol=1e-6)


def test_two_decoders_do_not_share_a_state(backend):
    model, F, params = built(backend, "mingru")
    one, other = (backend.decoder(model, F, params, batch=1) for _ in range(2))
    first = one.step(np.array([1]))
    one.step(np.array([2]))
    assert np.array_equal(other.step(np.array([1])), first)
    junk = [backend.xp.ones((64,)) * i + 1 for i in range(50)]
    assert all(backend.to_numpy(j)[0] == i + 1 for i, j in enumerate(junk))
    again = one.step(np.array([3]))
    third = backend.decoder(model, F, params, batch=1)
    for token in (1, 2):
        third.step(np.array([token]))
    assert np.array_equal(third.step(np.array([3])), again)
