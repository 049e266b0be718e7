"""bit_linear on devices: sums are exact wherever the bytes lie, for few rows and for many; NaN stays in its row."""

from __future__ import annotations

import numpy as np
import pytest

from helix_core import create
from helix_core.ops.bit_linear import bit_linear
from helix_core.ops.ternary import pack_ternary
from helix_core.plugin_system import explain
from helix_device_arrays.kernels.bit_linear import MANY, TOGETHER


@pytest.fixture(scope="module", params=("opencl", "webgpu"))
def backend(request):
    selection = explain("backend", request.param)
    if selection.component is None:
        pytest.skip(f"{request.param} cannot be used here: {selection.error}")
    return create("backend", request.param)


def levels(rng, *shape):
    x = rng.integers(-127, 128, size=shape).astype(np.float32)
    x[..., 0] = 127
    return x


@pytest.mark.parametrize("columns", [16, 48, 50, 301])
@pytest.mark.parametrize("rows", [1, TOGETHER, TOGETHER + 1, MANY])
def test_sums_are_exact(backend, rng, rows, columns):
    x, (packed, _) = levels(rng, rows, columns), pack_ternary(rng.normal(size=(7, columns)))
    F = backend.bind(mode="infer")
    assert F.trail["bit_linear"].chosen.endswith("/bit_linear")
    found = F.bit_linear(*map(backend.asarray, (x, packed, np.float32(1))))
    assert np.array_equal(backend.to_numpy(found), bit_linear(np, x.astype(np.float64), packed, np.float64(1)))


def test_wherever_the_bytes_lie(backend, rng):
    """A layer of a stack, every other row, words of 32 bits: all are the same weights."""
    F, x = backend.bind(mode="infer"), levels(rng, 2, 50)
    packed, one = pack_ternary(rng.normal(size=(8, 50)))[0], backend.asarray(np.ones(1, np.float32))
    expected = bit_linear(np, x.astype(np.float64), packed, 1.0)
    stack = backend.asarray(np.stack([packed + 1, packed]))
    gaps = backend.asarray(np.repeat(packed, 2, axis=0))
    for codes in (stack[1], gaps[::2], backend.asarray(packed.astype(np.int32)), backend.asarray(packed.T.copy()).T):
        assert np.array_equal(backend.to_numpy(F.bit_linear(backend.asarray(x), codes, one)), expected)


@pytest.mark.parametrize("rows", [3, MANY])
def test_rows_that_are_not_finite_stay_alone(backend, rng, rows):
    x, (packed, scale) = rng.normal(size=(rows, 70)), pack_ternary(rng.normal(size=(9, 70)))
    x[1, 4], x[2, 69] = np.nan, -np.inf
    y = backend.to_numpy(backend.bind(mode="infer").bit_linear(*map(backend.asarray, (x, packed, scale))))
    assert np.isnan(y[1:3]).all()
    assert np.isfinite(np.delete(y, (1, 2), axis=0)).all()


def test_weights_stay_two_bits_on_the_device(backend, rng):
    packed, scale = pack_ternary(rng.normal(size=(256, 1024)))
    x = backend.asarray(levels(rng, 1, 1024))
    before = backend.transfers()
    weights = backend.asarray(packed)
    assert weights.leaf().buffer.nbytes == 256 * 1024 // 4
    F, scale = backend.bind(mode="infer"), backend.asarray(scale)
    backend.to_numpy(F.bit_linear(x, weights, scale))
    backend.to_numpy(F.bit_linear(x, weights, scale))
    after = backend.transfers()
    assert after["uploads"] - before["uploads"] == 2
    assert after["launches"] - before["launches"] == 4
