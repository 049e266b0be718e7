"""Modules go where torch's modules go: into files and to other processes."""

import io
import multiprocessing
import pickle

import pytest
import torch

from helix_core import create
from helix_plugin_lm.models import LanguageModel, ModelConfig


@pytest.fixture(scope="module")
def backend():
    return create("backend", "cpu")


def model_of(mixer="mamba", **more):
    return LanguageModel(ModelConfig(vocab_size=32, d_model=64, n_layers=1, mixer={"name": mixer}, **more))


@pytest.fixture
def tokens():
    return torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(0))


def through_a_file(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [lambda m: pickle.loads(pickle.dumps(m)), through_a_file])
def test_a_module_comes_back_as_it_went(backend, tokens, copied):
    module = backend.module(model_of()).bfloat16()
    module.eval().requires_grad_(False)
    found = copied(module)
    assert torch.equal(found(tokens), module(tokens))
    assert found.F.dispatch_key == module.F.dispatch_key
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    assert found.model.param_specs().keys() == module.model.param_specs().keys()


def test_every_layer_can_be_sent(backend, helix_layer):
    layer = create("layer", helix_layer, d_model=64)
    module, x = backend.module(layer), torch.randn(2, 5, 64)
    found = pickle.loads(pickle.dumps(module))
    assert torch.equal(found(x), module(x))


def test_a_table_keeps_its_pins(backend):
    table = backend.bind(dtype="float64", mode="infer", pins={"rms_norm": "core/reference"})
    found = pickle.loads(pickle.dumps(table))
    assert found.dispatch_key == table.dispatch_key
    assert found.trail == table.trail


def answer(module, tokens):
    return module(tokens).detach().numpy()


def test_another_process_computes_the_same(backend, tokens):
    module = backend.module(model_of("s4d", mlp={"name": "swiglu"}))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(answer, (module, tokens))
    assert (found == module(tokens).detach().numpy()).all()
