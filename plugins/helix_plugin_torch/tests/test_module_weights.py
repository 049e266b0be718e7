"""What torch offers for a module's weights: sharing them, pruning, parametrising, other dtypes, fresh ones."""

import copy

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, prune

from helix_core import create
from helix_core.errors import ComponentUnavailable
from helix_plugin_lm.models import LanguageModel, ModelConfig

TARGET = "blocks.0.mixer.in_proj"


@pytest.fixture(scope="module")
def backend():
    return create("backend", "cpu")


def model_of(**more):
    mixer = {"name": "mamba", "d_state": 4}
    return LanguageModel(ModelConfig(vocab_size=32, d_model=16, n_layers=2, mixer=mixer, **more))


@pytest.fixture
def module(backend):
    return backend.module(model_of(), seed=1)


@pytest.fixture
def tokens():
    return torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(0))


def trained(module, tokens, steps=3):
    """The losses of a few steps."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    losses = []
    for _ in range(steps):
        logits = module(tokens[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits.float(), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_tied_weight_is_one_weight(backend, tokens):
    module = backend.module(model_of(tie_embeddings=False), seed=1)
    module.head.weight = module.embedding.weight
    assert torch.equal(module(tokens), backend.module(model_of(), seed=1)(tokens))
    losses = trained(module, tokens)
    assert losses[-1] < losses[0]
    assert module.head.weight is module.embedding.weight


def test_a_shared_part_is_one_part(module, tokens):
    module.blocks.add_module("1", module.get_submodule("blocks.0"))
    shared = module(tokens)
    twin = copy.deepcopy(module)
    assert torch.equal(twin(tokens), shared)
    losses = trained(module, tokens)
    assert losses[-1] < losses[0]
    state = {k: v for k, v in module.state_dict().items() if k.startswith("blocks.")}
    assert all(torch.equal(v, state[k.replace("blocks.0", "blocks.1")]) for k, v in state.items())


def test_a_pruned_weight_stays_pruned(module, tokens):
    plain = module(tokens)
    owner = module.get_submodule(TARGET)
    prune.l1_unstructured(owner, "weight", amount=0.5)
    zeros = owner.weight == 0
    assert zeros.float().mean() == pytest.approx(0.5, abs=0.01)
    assert not torch.equal(module(tokens), plain)
    losses = trained(module, tokens)
    assert losses[-1] < losses[0]
    pruned = module(tokens)
    assert bool((owner.weight[zeros] == 0).all())
    prune.remove(owner, "weight")
    assert torch.equal(module(tokens), pruned)


def test_global_pruning(module, tokens):
    parts = [(part, name) for part in module.modules() for name, p in part._parameters.items() if p.ndim == 2]
    prune.global_unstructured(parts, pruning_method=prune.L1Unstructured, amount=0.3)
    losses = trained(module, tokens)
    assert losses[-1] < losses[0]


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_a_parametrised_weight_is_what_its_function_says(backend, module, tokens):
    parametrize.register_parametrization(module.get_submodule(TARGET), "weight", Doubled())
    other = backend.module(model_of(), seed=1)
    with torch.no_grad():
        other.get_parameter(f"{TARGET}.weight").mul_(2)
    assert torch.equal(module(tokens), other(tokens))
    losses = trained(module, tokens)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "register", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
def test_parametrizations_of_torch(module, tokens, register):
    register(module.get_submodule(TARGET), "weight")
    losses = trained(module, tokens)
    assert losses[-1] < losses[0]


def test_weights_of_a_layer_alone(backend):
    layer = create("layer", "mingru", d_model=8)
    module, x = backend.module(layer), torch.randn(2, 5, 8)
    name = next(name for name, p in module.named_parameters() if p.ndim == 2)
    place, _, leaf = name.rpartition(".")
    parametrize.register_parametrization(module.get_submodule(place), leaf, Doubled())
    before = module(x)
    parametrize.remove_parametrizations(module.get_submodule(place), leaf)
    assert torch.equal(module(x), before)


CONVERSIONS = {
    "bfloat16": (torch.nn.Module.bfloat16, 0.1),
    "float16": (torch.nn.Module.half, 0.02),
    "float64": (torch.nn.Module.double, 1e-5),
}


@pytest.mark.parametrize("dtype", CONVERSIONS)
def test_another_dtype_is_one_of_parameters_and_activations(module, tokens, dtype):
    convert, tolerance = CONVERSIONS[dtype]
    expected = module(tokens).detach()
    converted = convert(module)
    assert converted is module
    logits = module(tokens)
    assert module.F.dispatch_key.dtype == dtype
    assert {p.dtype for p in module.parameters()} == {logits.dtype} == {getattr(torch, dtype)}
    assert torch.allclose(logits.float(), expected, atol=tolerance * float(expected.abs().max()))
    losses = trained(module, tokens)
    assert losses[-1] < losses[0]
    assert all(p.grad.dtype == p.dtype for p in module.parameters())
    assert module.float()(tokens).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_layer_has_gradients_in_every_dtype(backend, helix_layer, dtype):
    module = backend.module(create("layer", helix_layer, d_model=64), seed=0).to(dtype)
    x = torch.randn(2, 5, 64, dtype=dtype, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = module(x)
    y.square().mean().backward()
    assert y.dtype == x.grad.dtype == dtype
    for name, p in module.named_parameters():
        assert p.grad is None or (p.grad.dtype == dtype and bool(p.grad.isfinite().all())), name


def test_a_loaded_dtype_counts_too(backend, module, tokens):
    other = backend.module(model_of(), seed=2)
    other.load_state_dict({k: v.double() for k, v in module.state_dict().items()}, assign=True)
    assert other(tokens).dtype == torch.float64
    assert torch.allclose(other(tokens).float(), module(tokens), atol=1e-5)


def test_autocast(module, tokens):
    expected = module(tokens).detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits = module(tokens)
        assert module.F.dispatch_key.dtype == "bfloat16"
        logits.float().square().mean().backward()
    assert logits.dtype == torch.bfloat16
    assert {p.grad.dtype for p in module.parameters()} == {torch.float32}
    assert torch.allclose(logits.float(), expected, atol=0.1 * float(expected.abs().max()))
    assert torch.equal(module(tokens), expected)


def test_a_dtype_that_the_backend_does_not_have_changes_nothing(module, tokens):
    before = module(tokens)
    with pytest.raises(ComponentUnavailable, match="does not compute in float8"):
        module.to(torch.float8_e5m2)
    assert torch.equal(module(tokens), before)


def test_fresh_weights_are_torchs_to_draw(backend):
    layer = create("layer", "mamba", d_model=8)

    def drawn(**options):
        return torch.cat([p.flatten() for p in backend.module(layer, **options).parameters()])

    torch.manual_seed(3)
    first, second = drawn(), drawn()
    torch.manual_seed(3)
    assert torch.equal(drawn(), first)
    assert not torch.equal(first, second)
    assert torch.equal(drawn(seed=5), drawn(seed=5))
