"""The CPU's kernel of bit_linear: against the oracle at the edges of its chunks, exact sums, hostile rows, threads."""

import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.ops import Sample
from helix_core.ops.bit_linear import bit_linear
from helix_core.ops.ternary import pack_ternary
from helix_testing import BaseKernelTests


def levels(rng, *shape):
    """Activations that are whole levels: nothing is rounded."""
    x = rng.integers(-127, 128, size=shape).astype(np.float64)
    x[..., 0] = 127
    return x


class TestBitLinear(BaseKernelTests):
    kernel, op, backend = "cpu/bit_linear", "bit_linear", "cpu"

    def samples(self, rng):
        for rows, columns, outputs in ((1, 255, 3), (2, 256, 4), (3, 257, 65), (5, 1021, 130), (8, 70, 9), (7, 4, 2)):
            packed, scale = pack_ternary(rng.normal(size=(outputs, columns)))
            arrays = {"x": levels(rng, rows, columns) * 1e25, "packed": packed, "scale": scale}
            yield Sample(arrays | {"bias": rng.normal(size=outputs)}, label=f"{(rows, columns, outputs)}")
        packed, scale = pack_ternary(rng.normal(size=(4, 20)))
        yield Sample({"x": np.zeros((0, 20)), "packed": packed, "scale": scale}, label="no rows")


@pytest.fixture(scope="module")
def op():
    return create("backend", "cpu").bind(mode="infer").bit_linear


def given(x, packed, scale):
    return torch.tensor(x, dtype=torch.float32), torch.tensor(packed), torch.tensor(scale)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_are_exact(op, sign):
    """All weights +1 or -1 and all activations 127: sums beyond what 16 bits, or float32's 24, can hold."""
    columns = 1 << 17
    packed, scale = pack_ternary(np.full((5, columns), sign), 1.0)
    y = op(*given(np.full((2, columns), 127.0), packed, scale))
    assert y.tolist() == [[sign * 127.0 * columns] * 5] * 2


def test_rows_alone_and_together_are_the_same(op, rng):
    x, (packed, scale) = levels(rng, 11, 300), pack_ternary(rng.normal(size=(70, 300)))
    every = op(*given(x, packed, scale))
    alone = torch.cat([op(*given(x[i : i + 3], packed, scale)) for i in range(0, 11, 3)])
    assert torch.equal(every, alone)


@pytest.mark.parametrize("rows", [3, 9])
def test_rows_that_are_not_finite_stay_alone(op, rng, rows):
    x, weights = rng.normal(size=(rows, 70)), pack_ternary(rng.normal(size=(9, 70)))
    x[1, 4], x[2, 69] = np.nan, -np.inf
    y = op(*given(x, *weights))
    assert y[1:3].isnan().all()
    finite = [i for i in range(rows) if i not in (1, 2)]
    assert y[finite].isfinite().all()


def test_any_number_of_threads_gives_the_same(op, rng):
    x, weights = rng.normal(size=(2, 3000)), pack_ternary(rng.normal(size=(1000, 3000)))
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(op(*given(x, *weights)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_any_activations_are_within_a_level_of_the_oracle(op, rng):
    """float32 may round a value next to a tie to the other side; then one level of one activation differs."""
    x, (packed, scale) = rng.normal(size=(4, 2560)).astype(np.float32), pack_ternary(rng.normal(size=(50, 2560)))
    expected = bit_linear(np, x.astype(np.float64), packed, scale)
    level = np.abs(x).max(axis=-1, keepdims=True) / 127 * scale
    assert (np.abs(op(*given(x, packed, scale)).numpy() - expected) <= 1.01 * level + 1e-5).all()


def test_views_and_other_dtypes(op, rng):
    x, (packed, scale) = levels(rng, 6, 40), pack_ternary(rng.normal(size=(10, 40)))
    expected = op(*given(x, packed, scale))
    wide = torch.tensor(np.repeat(packed, 2, axis=0))[::2]
    assert torch.equal(op(given(x, packed, scale)[0], wide, torch.tensor(scale)[None]), expected)
    assert torch.equal(op(torch.tensor(x.T.copy(), dtype=torch.float32).T, *given(x, packed, scale)[1:]), expected)
    with pytest.raises(TypeError, match=r"packed is torch.int32"):
        op(given(x, packed, scale)[0], torch.tensor(packed.astype(np.int32)), torch.tensor(scale))


def test_the_compiler_sees_one_operator(op, rng):
    x, weights = rng.normal(size=(2, 3, 40)), pack_ternary(rng.normal(size=(10, 40)))
    arrays = given(x, *weights)
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    found = torch.compile(lambda *a: op(*a) * 2, backend=keep, fullgraph=True)(*arrays)
    assert torch.equal(found, op(*arrays) * 2)
    assert sum("cpu_bit_linear" in str(node.target) for node in graphs[0].graph.nodes) == 1
