"""The loss of a head in chunks of rows: the kernel kit, torch's own checks, and what is in memory meanwhile."""

import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.ops import OPS, Sample
from helix_core.ops import linear_cross_entropy as core
from helix_plugin_torch import linear_cross_entropy as module
from helix_plugin_torch.linear_cross_entropy import chunked
from helix_testing import BaseKernelTests

OP = OPS["linear_cross_entropy"]


def many_rows(rng):
    """Several chunks, the last one not full; one that is full; classes that do not fill a vector."""
    for shape, width, classes in (((3, 130), 5, 131), ((256,), 16, 96), ((129,), 1, 7)):
        arrays = {"x": rng.normal(size=(*shape, width)), "weight": rng.normal(size=(classes, width))}
        yield Sample(arrays | {"targets": rng.integers(classes, size=shape)}, label=f"{shape} of {classes}")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(core, "CHUNK", 100)


class TestWhole(BaseKernelTests):
    kernel, op, backend = "torch/linear_cross_entropy", "linear_cross_entropy", "cpu"

    def samples(self, rng):
        yield Sample({"x": rng.normal(size=(0, 3)), "weight": rng.normal(size=(4, 3)), "targets": np.zeros(0, int)})


@pytest.mark.usefixtures("small_chunks")
class TestInChunks(BaseKernelTests):
    kernel, op, backend = "torch/linear_cross_entropy", "linear_cross_entropy", "cpu"

    def samples(self, rng):
        return many_rows(rng)


@pytest.fixture
def inputs(rng):
    sample = next(iter(many_rows(rng)))
    x, weight = (torch.from_numpy(sample.arrays[n]).float() for n in ("x", "weight"))
    return x, weight, torch.from_numpy(sample.arrays["targets"])


def test_opcheck(inputs):
    create("backend", "cpu").bind()
    x, weight, targets = inputs
    given = (x.requires_grad_(), weight.requires_grad_(), targets)
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("helix::torch_linear_cross_entropy")]
    for name in names:
        if "backward" not in name:
            checks = ("test_schema", "test_autograd_registration", "test_faketensor")
            torch.library.opcheck(
                getattr(torch.ops.helix, name.split("::")[1]).default, (*given, None), test_utils=checks
            )
    assert len(names) == 3


@pytest.mark.usefixtures("small_chunks")
def test_only_a_chunk_of_logits_is_there_at_a_time(inputs):
    x, weight, targets = inputs
    seen = []

    def recorded(function):
        def run(logits, *rest):
            seen.append((len(logits), logits.data_ptr()))
            return function(logits, *rest)

        return run

    def losses(logits, targets):
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    def losses_and_gradients(logits, targets, dnats):
        nats, dlogits = losses(logits, targets), logits.softmax(1)
        dlogits[torch.arange(len(targets)), targets] -= 1
        logits.copy_(dlogits * dnats[:, None])
        return nats

    kernel = chunked(recorded(losses), recorded(losses_and_gradients))
    (plain,) = kernel.forward(x, weight, targets)
    (nats,), saved = kernel.forward_train(x, weight, targets)
    assert torch.allclose(plain, nats, rtol=1e-6)
    assert [rows for rows, _ in seen] == [128, 128, 128, 6] * 2
    assert len({pointer for _, pointer in seen[:4]}) == len({pointer for _, pointer in seen[4:]}) == 1
    assert [a.shape for a in saved] == [x.shape, weight.shape]
    kernel.backward((torch.full_like(nats, 0.3),), (x, weight, targets), saved)
    assert len(seen) == 8, "rows that are weighed alike are not gone over again"
    kernel.backward((torch.rand(nats.shape),), (x, weight, targets), saved)
    assert [rows for rows, _ in seen[8:]] == [128, 128, 128, 6]


@pytest.mark.usefixtures("small_chunks")
def test_nothing_as_large_as_the_logits_is_kept(inputs):
    x, weight, targets = inputs
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        module.linear_cross_entropy(x.requires_grad_(), weight, targets)
    assert sum(kept) == 2 * (x.numel() + weight.numel()) + targets.numel()


@pytest.mark.parametrize("numbers", [100, 1 << 20])
def test_a_target_that_is_no_class_is_refused(inputs, monkeypatch, numbers):
    monkeypatch.setattr(core, "CHUNK", numbers)
    x, weight, targets = inputs
    targets[2, 5] = 131
    with pytest.raises(IndexError, match="131"):
        module.linear_cross_entropy(x, weight, targets)


@pytest.mark.usefixtures("small_chunks")
def test_what_does_not_fit_is_refused(inputs):
    x, weight, targets = inputs
    with pytest.raises(ValueError, match=r"x \(3, 130, 5\), weight \(131, 5\) and targets \(130, 3\) do not fit"):
        module.linear_cross_entropy(x, weight, targets.T)


# torch's compiler itself uses what torch deprecates, on its first import.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("small_chunks")
def test_compiled_in_one_graph(inputs):
    x, weight, targets = inputs
    leaves = [x.requires_grad_(), weight.requires_grad_()]

    def loss(x, weight):
        return (module.linear_cross_entropy(x, weight, targets) ** 2).mean()

    expected, found = loss(*leaves), torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves)
    assert torch.allclose(expected, found)
    for a, b in zip(torch.autograd.grad(expected, leaves), torch.autograd.grad(found, leaves), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
