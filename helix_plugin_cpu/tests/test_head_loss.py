"""The loss of a head on the CPU, whole and in chunks: against the oracle, in bfloat16, on hostile input, in a model."""

import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.ops import Sample
from helix_core.ops import linear_cross_entropy as core
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
from helix_plugin_training.chunked import chunked_value_and_grad
from helix_plugin_training.reversible import reversible_value_and_grad
from helix_testing import BaseKernelTests


def inputs(rng, shape=(3, 130), width=5, classes=131):
    arrays = {"x": rng.normal(size=(*shape, width)), "weight": rng.normal(size=(classes, width))}
    return arrays | {"targets": rng.integers(classes, size=shape)}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(core, "CHUNK", 100)


class TestHeadLoss(BaseKernelTests):
    kernel, op, backend = "cpu/linear_cross_entropy", "linear_cross_entropy", "cpu"

    def samples(self, rng):
        yield Sample({"x": rng.normal(size=(0, 3)), "weight": rng.normal(size=(4, 3)), "targets": np.zeros(0, int)})


@pytest.mark.usefixtures("small_chunks")
class TestHeadLossInChunks(BaseKernelTests):
    kernel, op, backend = "cpu/linear_cross_entropy", "linear_cross_entropy", "cpu"

    def samples(self, rng):
        for shape, width, classes in (((3, 130), 5, 131), ((256,), 16, 96), ((129,), 1, 7)):
            yield Sample(inputs(rng, shape, width, classes), label=f"{shape} of {classes}")


@pytest.fixture(scope="module")
def backend():
    return create("backend", "cpu")


def gradients(F, x, weight, targets, dnats):
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    nats = F.linear_cross_entropy(*leaves, targets)
    return nats.detach(), *torch.autograd.grad(nats, leaves, dnats)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_chunks_give_what_the_whole_gives(backend, rng, monkeypatch, dtype):
    F, arrays = backend.bind(dtype=dtype), {n: torch.from_numpy(a) for n, a in inputs(rng).items()}
    x, weight = arrays["x"].to(getattr(torch, dtype)), arrays["weight"].float()
    dnats = torch.from_numpy(rng.normal(size=(3, 130))).float()
    whole = gradients(F, x, weight, arrays["targets"], dnats)
    monkeypatch.setattr(core, "CHUNK", 100)
    parts = gradients(F, x, weight, arrays["targets"], dnats)
    assert [a.dtype for a in parts] == [torch.float32, x.dtype, torch.float32]
    for a, b in zip(whole, parts, strict=True):
        assert (a - b).abs().max() <= (1e-5 if dtype == "float32" else 2e-2) * a.abs().max()


@pytest.mark.parametrize("target", [-1, 131])
@pytest.mark.parametrize("numbers", [100, 1 << 20])
def test_a_target_that_is_no_class_is_refused(backend, rng, monkeypatch, target, numbers):
    monkeypatch.setattr(core, "CHUNK", numbers)
    x, weight, targets = (torch.from_numpy(a) for a in inputs(rng).values())
    targets[2, 7] = target
    with pytest.raises(IndexError, match="131 classes"):
        backend.bind().linear_cross_entropy(x.float(), weight.float(), targets)


@pytest.mark.usefixtures("small_chunks")
def test_a_nan_stays_in_its_row(backend, rng):
    x, weight, targets = (torch.from_numpy(a) for a in inputs(rng).values())
    x[2, 7, 0] = float("nan")
    nats, dx, dweight = gradients(backend.bind(), x.float(), weight.float(), targets, torch.ones(3, 130))
    rows = torch.zeros(3, 130, dtype=torch.bool)
    rows[2, 7] = True
    assert torch.equal(nats.isnan(), rows)
    assert torch.equal(dx.isnan().all(-1), rows)
    assert torch.equal(dx.isnan().any(-1), rows)
    assert dweight.isnan().all()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", ["plain", "chunked", "reversible"])
def test_a_model_has_the_loss_and_gradient_of_whole_logits(backend, rng, tied, how):
    config = {"vocab_size": 200, "d_model": 8, "n_layers": 2, "tie_embeddings": tied, "reversible": how == "reversible"}
    model = LanguageModel(ModelConfig(**config, mixer={"name": "mingru"}, mlp={"name": "mingru"}))
    params = {name: backend.asarray(a) for name, a in model.init(0).items()}
    tokens, targets = (torch.from_numpy(rng.integers(200, size=(2, 150))) for _ in range(2))
    weights = torch.from_numpy(rng.random((2, 150)) < 0.5).float() / 150
    F, F_infer = backend.bind(mode="train"), backend.bind(mode="infer")
    ways = {
        "plain": backend.value_and_grad(lambda p, x, y, reset, w: loss(model, F, p, x, y, reset=reset, weights=w)),
        "chunked": chunked_value_and_grad(backend, model, F, F_infer, 90),
        "reversible": reversible_value_and_grad(backend, model, F, F_infer),
    }
    whole = backend.bind(mode="train", pins={"linear_cross_entropy": "core/reference"})
    for scored in (None, weights):
        expected = backend.value_and_grad(lambda p, w=scored: loss(model, whole, p, tokens, targets, weights=w))(params)
        found = ways[how](params, tokens, targets, None, scored)
        assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-6)
        for name, gradient in expected[1].items():
            assert (found[1][name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7, name
