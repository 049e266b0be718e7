"""One checkpoint, every backend that is usable here: equal logits, equal texts, equal training."""

import numpy as np
import pytest

from helix_core import create
from helix_core.plugin_system import components
from helix_plugin_lm.generation import Sampling, Stopping, generate
from helix_plugin_lm.runs.load import load_run
from helix_plugin_training import Trainer, train
from helix_plugin_training.data import load_corpus
from helix_plugin_training.recipes import parse_recipe
from helix_testing.layers import usable_backends

MIXERS = {
    "mamba": '{ name = "mamba" }',
    "hyena": '{ name = "hyena", l_max = 160 }',
    "s4d": '{ name = "s4d", d_state = 16 }',
    "rwkv7": '{ name = "rwkv7", head_dim = 16 }',
}
RECIPE = """
name = "parity"
[model]
d_model = 32
n_layers = 2
mixer = {mixer}
[data]
source = "{data}"
validation = 0.2
[training]
steps = {steps}
batch_size = 2
seq_len = 96
[optimizer]
name = "adamw"
lr = 1e-2
[sample]
max_bytes = 1
[backend]
name = "{backend}"
"""
PROMPT = b"line 3: the quick"


USABLE = usable_backends()
TRAINING = [c.full_name for c in components("backend") if "grad" in c.descriptor.provides and c.full_name in USABLE]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i in range(8):
        (folder / f"{i}.txt").write_text(f"line {i}: the quick brown fox jumps over the lazy dog {i * i}\n" * 20)
    return folder


@pytest.fixture(scope="module", params=MIXERS)
def run(request, data, tmp_path_factory):
    """A run folder of a model that the cpu backend has trained."""
    text = RECIPE.format(mixer=MIXERS[request.param], data=data, steps=60, backend="cpu")
    return train(parse_recipe(text, "parity.toml"), runs=tmp_path_factory.mktemp(request.param)).path


def outcome(run, name):
    """Logits in float32 after the prompt's every byte, and a greedy text of 100 bytes."""
    loaded = load_run(run, backend=name)
    backend, model, params = loaded.backend, loaded.model, loaded.params
    F = backend.bind(mode="infer")
    tokens = backend.asarray(np.frombuffer(PROMPT, np.uint8).astype(np.int64)[None])
    with backend.inference():
        logits = backend.to_numpy(model.apply(F, params, tokens)[0]).astype(np.float64)
    stopping = Stopping(max_bytes=100)
    text = b"".join(generate(model, backend, F, params, PROMPT, sampling=Sampling(temperature=0), stopping=stopping))
    return logits, text


@pytest.fixture(scope="module")
def expected(run):
    return outcome(run, "reference")


@pytest.mark.parametrize("name", USABLE)
def test_logits_and_texts(run, expected, name):
    logits, text = outcome(run, name)
    assert np.abs(logits - expected[0]).max() <= 1e-4 * np.abs(expected[0]).max()
    assert text == expected[1]
    assert len(text) == 100


def curve(data, mixer, name):
    text = RECIPE.format(mixer=MIXERS[mixer], data=data, steps=50, backend=name).replace("lr = 1e-2", "lr = 3e-3")
    trainer = Trainer(parse_recipe(text, "parity.toml"), load_corpus(str(data), 0.2))
    return [trainer.advance(50).loss for _ in range(50)]


@pytest.fixture(scope="module", params=MIXERS)
def trained(request, data):
    """A mixer and its curve on the cpu backend."""
    losses = curve(data, request.param, "cpu")
    assert losses[-1] < 0.8 * losses[0]
    return request.param, losses


@pytest.mark.parametrize("name", [name for name in TRAINING if name != "cpu/cpu"])
def test_fifty_steps_of_training(data, trained, name):
    mixer, losses = trained
    assert curve(data, mixer, name) == pytest.approx(losses, rel=1e-3)


@pytest.mark.parametrize("writer", TRAINING)
def test_what_one_writes_all_read(data, tmp_path, writer):
    text = RECIPE.format(mixer=MIXERS["mamba"], data=data, steps=2, backend=writer)
    folder = train(parse_recipe(text, "parity.toml"), runs=tmp_path).path
    params = {}
    for name in USABLE:
        loaded = load_run(folder, backend=name)
        assert loaded.step == 2
        params[name] = {key: create("backend", name).to_numpy(value) for key, value in loaded.params.items()}
    (first, *others) = params.values()
    for other in others:
        assert other.keys() == first.keys()
        assert all(np.array_equal(other[key], first[key]) for key in first)
