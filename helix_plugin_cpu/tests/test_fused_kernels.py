"""The kernels of one pass: against the oracle and its gradient, at the edges of their vectors, and on hostile input."""

import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.errors import IndexOutOfRange
from helix_core.ops import Sample
from helix_testing import BaseKernelTests


class TestAddRMSNorm(BaseKernelTests):
    kernel, op, backend = "cpu/add_rms_norm", "add_rms_norm", "cpu"

    def samples(self, rng):
        for shape in ((1, 1), (130, 16), (3, 65, 47)):
            arrays = {name: rng.normal(size=shape) for name in ("x", "residual")}
            yield Sample({**arrays, "weight": rng.normal(size=shape[-1])})


class TestSwiGLU(BaseKernelTests):
    kernel, op, backend = "cpu/swiglu", "swiglu", "cpu"

    def samples(self, rng):
        for shape in ((1,), (16385,), (7, 31, 129)):
            yield Sample({"gate": rng.normal(size=shape) * 2, "x": rng.normal(size=shape)})


class TestCrossEntropy(BaseKernelTests):
    kernel, op, backend = "cpu/cross_entropy", "cross_entropy", "cpu"

    def samples(self, rng):
        for rows, vocab in ((1, 2), (9, 15), (33, 16), (5, 1027)):
            yield Sample({"logits": rng.normal(size=(rows, vocab)) * 5, "targets": rng.integers(vocab, size=rows)})
        far = rng.normal(size=(4, 20)) * 1000
        best = far.argmax(-1)
        far[np.arange(4), best] += 50  # two that are close need a finer finite difference than these values give
        yield Sample({"logits": far, "targets": best}, label="certain")


class TestEmbedding(BaseKernelTests):
    kernel, op, backend = "cpu/embedding", "embedding", "cpu"

    def samples(self, rng):
        for count, vocab, width in ((1, 3, 1), (500, 7, 65), (40, 1000, 130)):
            yield Sample({"tokens": rng.integers(vocab, size=(count,)), "weight": rng.normal(size=(vocab, width))})


class TestAdamW(BaseKernelTests):
    kernel, op, backend = "cpu/adamw", "adamw", "cpu"

    def samples(self, rng):
        for size in (1, 17, 16384, 40001):
            arrays = {name: rng.normal(size=size) for name in "pgm"}
            yield Sample({**arrays, "v": rng.random(size)}, {"lr": 3e-3, "weight_decay": 0.1, "step": 5})


def test_donated_arrays_are_written_over_and_count_as_new(F):
    for size in (1, 17, 40001):
        arrays = [torch.randn(size), torch.randn(size), torch.randn(size), torch.rand(size)]
        options = {"lr": 3e-3, "weight_decay": 0.1, "step": 5}
        with torch.no_grad():
            expected = F.adamw(*arrays, **options)
            versions = [a._version for a in arrays]
            found = F.adamw(*arrays, **options, donate=True)
        for new, given, same in zip(found, (arrays[0], *arrays[2:]), expected, strict=True):
            assert new is given
            assert torch.equal(new, same)
        assert [a._version > before for a, before in zip(arrays, versions, strict=True)] == [True, False, True, True]


def test_a_donated_array_with_gaps_stays_as_it_was(F):
    apart = torch.randn(8, 2)[:, 0]
    before = apart.clone()
    rest = torch.randn(8), torch.randn(8), torch.rand(8)
    with torch.no_grad():
        p, _, _ = F.adamw(apart, *rest, donate=True)
    assert torch.equal(apart, before)
    assert not torch.equal(p, before)


@pytest.fixture(scope="module")
def F():
    return create("backend", "cpu").bind(mode="train")


def test_cross_entropy_keeps_no_second_array_of_logits(F):
    logits = torch.randn(64, 4096, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        F.cross_entropy(logits, torch.zeros(64, dtype=torch.int64))
    assert sum(t.numel() for t in kept if t.data_ptr() != logits.data_ptr()) <= 2 * 64


@pytest.mark.parametrize("target", [-1, 11])
def test_a_target_that_is_no_class_is_refused(F, target):
    with pytest.raises(IndexOutOfRange, match=r"only 0\.\.10 are there"):
        F.cross_entropy(torch.randn(2, 11), torch.tensor([0, target]))


def test_a_token_outside_the_table_is_refused(F):
    with pytest.raises(IndexOutOfRange, match=r"tokens run from 3 to 3, and only 0\.\.2"):
        F.embedding(torch.tensor([3]), torch.randn(3, 4))


@pytest.mark.parametrize("op", ["swiglu", "add_rms_norm", "cross_entropy"])
def test_nan_goes_through(F, op):
    x, other = torch.randn(3, 20), torch.randn(3, 20)
    x[1, 18] = float("nan")
    second = {"swiglu": (other,), "add_rms_norm": (other, torch.ones(20)), "cross_entropy": (torch.zeros(3).long(),)}
    y = getattr(F, op)(x, *second[op])
    y = y[0] if isinstance(y, tuple) else y
    rows = y.isnan().reshape(3, -1).any(-1)
    assert rows.tolist() == [False, True, False]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_tables_gradient_does_not_depend_on_the_threads(F, threads):
    tokens, weight = torch.arange(9000) % 13, torch.randn(13, 200, requires_grad=True)
    dy = torch.from_numpy(np.random.default_rng(0).normal(size=(9000, 200)).astype(np.float32))

    def gradient():
        return torch.autograd.grad(F.embedding(tokens, weight), weight, dy)[0]

    expected, before = gradient(), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(gradient(), expected)
    finally:
        torch.set_num_threads(before)
