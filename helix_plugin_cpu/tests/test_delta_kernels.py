"""The kernels of RWKV-7's recurrence and of the gated delta rule against their references."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_core import create
from helix_core.ops import OPS, Sample
from helix_testing import BaseKernelTests
from helix_testing.levels.grad import check_gradient
from helix_testing.levels.ops import check_values


def rwkv7_inputs(rng, B, L, H, K, V, ragged=True):
    key = rng.normal(size=(B, L, H, K))
    key = key / np.linalg.norm(key, axis=-1, keepdims=True)
    arrays = {
        "r": rng.normal(size=(B, L, H, K)),
        "log_decay": -rng.exponential(0.3, size=(B, L, H, K)),
        "k": rng.normal(size=(B, L, H, K)) / np.sqrt(K),
        "v": rng.normal(size=(B, L, H, V)),
        "a": -key,
        "b": key * rng.uniform(size=(B, L, H, K)),
    }
    if ragged:
        arrays |= {
            "initial_state": rng.normal(size=(B, H, K, V)),
            "reset": rng.random((B, L)) < 0.1,
            "lengths": rng.integers(L + 1, size=B),
        }
    return arrays


class TestRWKV7(BaseKernelTests):
    kernel, op, backend = "cpu/rwkv7", "rwkv7", "cpu"

    def samples(self, rng):
        for shape in ((2, 70, 2, 17, 40), (1, 33, 3, 16, 16), (1, 5, 1, 1, 65), (3, 1, 2, 64, 64)):
            yield Sample(rwkv7_inputs(rng, *shape), label=f"{shape}")


class TestGatedDeltaRule(BaseKernelTests):
    kernel, op, backend = "cpu/gated_delta_rule", "gated_delta_rule", "cpu"


@pytest.fixture(scope="module")
def backend():
    return create("backend", "cpu")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(0, 50), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    ragged=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(backend, shape, ragged, seed):
    rng = np.random.default_rng(seed)
    sample = Sample(rwkv7_inputs(rng, *shape, ragged=ragged))
    check_values(backend, backend.bind(mode="infer"), OPS["rwkv7"], sample, "float32")
    if shape[1]:
        check_gradient(backend, backend.bind(mode="train"), OPS["rwkv7"], sample, "float32", rng)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_bit(backend, rng, threads):
    F, op = backend.bind(mode="train"), OPS["rwkv7"]
    sample = rwkv7_inputs(rng, 2, 200, 3, 24, 40)
    arrays = {n: torch.from_numpy(a).float() if a.dtype.kind == "f" else torch.from_numpy(a) for n, a in sample.items()}
    leaves = [a.requires_grad_(True) for a in arrays.values() if a.is_floating_point()]

    def run():
        y, last = F.rwkv7(*(arrays.get(n) for n in op.arrays))
        return [y.detach(), last.detach(), *torch.autograd.grad((y * y).sum() + last.sum(), leaves)]

    expected, before = run(), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))
    finally:
        torch.set_num_threads(before)


def test_nan_reaches_what_comes_after_it_and_nothing_else(backend, rng):
    F = backend.bind(mode="infer")
    arrays = [torch.from_numpy(a).float() for a in rwkv7_inputs(rng, 2, 12, 2, 8, 20, ragged=False).values()]
    arrays[3][0, 5, 1, 3] = float("nan")
    bad = F.rwkv7(*arrays)[0].isnan()
    assert bad[0, 5:, 1, 3].all()
    bad[0, 5:, 1, 3] = False
    assert not bad.any()


def test_wrong_inputs(backend):
    F = backend.bind(mode="infer")
    x, v = torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 2, 5)
    with pytest.raises(ValueError, match=r"k has shape \(1, 4, 2, 4\), expected \(1, 4, 2, 3\)"):
        F.rwkv7(x, x, torch.zeros(1, 4, 2, 4), v, x, x)
    with pytest.raises(ValueError, match="3 heads cannot share 2 groups"):
        F.gated_delta_rule(x, x, torch.zeros(1, 4, 3, 5), torch.zeros(1, 4, 3), torch.zeros(1, 4, 3))
    with pytest.raises(TypeError, match=r"float64"):
        F.rwkv7(x.double(), x, x, v, x, x)
