"""bit_linear on MLX: columns that its product takes and columns that it does not, few rows and many."""

import numpy as np
import pytest

from helix_core import create
from helix_core.ops import Sample
from helix_core.ops.bit_linear import bit_linear
from helix_core.ops.ternary import pack_ternary
from helix_plugin_metal.kernels.bit_linear import FEW_ROWS
from helix_testing import BaseKernelTests

SHAPES = ((1, 127, 5), (3, 30, 2), (2, 256, 9), (FEW_ROWS, 64, 33), (FEW_ROWS + 1, 64, 33), (0, 64, 3))


def levels(rng, *shape):
    x = rng.integers(-127, 128, size=shape).astype(np.float64)
    x[..., :1] = 127
    return x


class TestBitLinear(BaseKernelTests):
    kernel, op, backend = "metal/bit_linear", "bit_linear", "metal"

    def samples(self, rng):
        for rows, columns, outputs in SHAPES:
            packed, scale = pack_ternary(rng.normal(size=(outputs, columns)))
            arrays = {"x": levels(rng, rows, columns), "packed": packed, "scale": scale}
            yield Sample(arrays | {"bias": rng.normal(size=outputs)}, label=f"{(rows, columns, outputs)}")


@pytest.mark.parametrize("columns", [4096, 65536])
def test_sums_are_exact(rng, columns):
    backend = create("backend", "metal")
    x, packed = levels(rng, 1, columns), pack_ternary(np.ones((3, columns)), 1.0)[0]
    x[:] = 127
    arrays = (backend.asarray(a) for a in (x.astype(np.float32), packed, np.float32(1)))
    found = backend.to_numpy(backend.bind(mode="infer").bit_linear(*arrays))
    assert np.array_equal(found, bit_linear(np, x, packed, 1.0))


def test_rows_that_are_not_finite_stay_alone(rng):
    backend = create("backend", "metal")
    x, (packed, scale) = rng.normal(size=(3, 64)).astype(np.float32), pack_ternary(rng.normal(size=(9, 64)))
    x[1, 4], x[2, 63] = np.nan, -np.inf
    y = backend.to_numpy(backend.bind(mode="infer").bit_linear(*map(backend.asarray, (x, packed, scale))))
    assert np.isnan(y[1:]).all()
    assert np.isfinite(y[0]).all()
