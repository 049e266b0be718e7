"""Helix models as real nn.Modules: names, state_dict, compile, export, deepcopy."""

import copy
import io

import pytest
import torch

from helix_core import create
from helix_plugin_lm.models import LanguageModel, ModelConfig

# torch's compiler itself uses what torch deprecates, on its first import.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def backend():
    return create("backend", "cpu")


@pytest.fixture(scope="module")
def model():
    mixer = ({"name": "mamba", "d_state": 4}, {"name": "s4d", "d_state": 4})
    return LanguageModel(ModelConfig(vocab_size=32, d_model=16, n_layers=2, mixer=mixer))


@pytest.fixture(scope="module")
def mamba():
    return LanguageModel(ModelConfig(vocab_size=32, d_model=16, n_layers=2, mixer={"name": "mamba", "d_state": 4}))


@pytest.fixture
def tokens():
    return torch.randint(32, (2, 12))


def test_state_dict_has_the_helix_names_and_values(backend, model):
    module = backend.module(model, seed=5)
    expected = model.init(5)
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == {k: v.shape for k, v in expected.items()}
    assert all(torch.equal(module.state_dict()[k], torch.from_numpy(v)) for k, v in expected.items())
    assert isinstance(module.get_submodule("blocks.0.mixer.in_proj"), torch.nn.Module)


def test_state_dict_round_trip(backend, model, tokens):
    first, second = backend.module(model, seed=1), backend.module(model, seed=2)
    assert not torch.equal(first(tokens), second(tokens))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(first(tokens), second(tokens))


def test_it_trains_with_a_torch_optimizer(backend, model, tokens):
    module = backend.module(model)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        logits = module(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_copy_is_independent(backend, model, tokens):
    module = backend.module(model)
    twin = copy.deepcopy(module)
    before = module(tokens)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert torch.equal(module(tokens), before)


def test_a_state_goes_in_and_out(backend, model, tokens):
    module = backend.module(model)
    whole = module(tokens)
    state, parts = module.init_state(2), []
    for t in range(12):
        logits, state = module(tokens[:, t : t + 1], state=state)
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_a_single_layer_is_a_module_too(backend):
    layer = create("layer", "mamba", d_model=8)
    module = backend.module(layer)
    assert module(torch.randn(2, 5, 8)).shape == (2, 5, 8)
    assert {name for name, _ in module.named_parameters()} == set(layer.param_specs())


def test_compile_without_graph_breaks_passes_through_the_kernels(backend, mamba, tokens):
    module = backend.module(mamba)
    assert module.F.trail["selective_scan"].chosen == "cpu/selective_scan"
    compiled = torch.compile(module, fullgraph=True)
    eager = module(tokens)
    assert torch.allclose(compiled(tokens), eager, atol=1e-5)
    weights = torch.randn_like(eager)
    wanted = torch.autograd.grad((eager * weights).sum(), list(module.parameters()))
    found = torch.autograd.grad((compiled(tokens) * weights).sum(), list(module.parameters()))
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max() + 1e-3))


def test_export_keeps_the_kernels_and_a_dynamic_length(backend, mamba, tokens):
    module = backend.module(mamba)
    length = torch.export.Dim("length", min=2, max=4096)
    program = torch.export.export(module, (tokens,), dynamic_shapes=({1: length},))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("helix.cpu_selective_scan" in target for target in targets)
    exported = program.module()
    for n in (5, 12, 40):
        longer = torch.randint(32, (2, n))
        assert torch.allclose(exported(longer), module(longer), atol=1e-5)
