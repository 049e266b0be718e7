"""What NumPy computes on MLX's CPU device: the same inside MLX's transformations, where it cannot, and in gradients."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from helix_plugin_metal import host
from helix_plugin_metal.kernels._matmul import matmul
from helix_plugin_metal.kernels.linear import linear
from helix_plugin_metal.kernels.sigmoid import sigmoid
from helix_plugin_metal.kernels.silu import silu
from helix_plugin_metal.kernels.softplus import softplus

if mx.default_device().type != mx.cpu:
    pytest.skip("MLX computes on a GPU here", allow_module_level=True)

SIZE = 160  # large enough for NumPy to be asked


def drawn(rng, *shape):
    return mx.array(rng.normal(size=shape).astype(np.float32))


CASES = {
    "sigmoid": (sigmoid, mx.sigmoid),
    "silu": (silu, lambda x: x * mx.sigmoid(x)),
    "softplus": (softplus, lambda x: mx.logaddexp(x, 0)),
    "left factor": (lambda x: matmul(x, x[::-1]), lambda x: mx.matmul(x, x[::-1])),
    "map": (lambda x: linear(x, x + 1), lambda x: mx.matmul(x, (x + 1).T)),
    "batches": (
        lambda x: matmul(x.reshape(2, -1, 40), x[:40, :9]),
        lambda x: mx.matmul(x.reshape(2, -1, 40), x[:40, :9]),
    ),
    "gaps": (lambda x: matmul(x[:, ::2], x[::2].T[::2]), lambda x: mx.matmul(x[:, ::2], x[::2].T[::2])),
}


@pytest.fixture(params=CASES)
def pair(request):
    return CASES[request.param]


def close(found, expected, within):
    scale = float(mx.max(mx.abs(expected)))
    assert float(mx.max(mx.abs(found - expected))) <= within * scale


def test_values_are_mlxs_own(pair, rng):
    ours, theirs = pair
    x = 3 * drawn(rng, SIZE, SIZE)
    close(ours(x), theirs(x), 1e-6)
    with pytest.raises(ValueError, match="during function transformations"):
        mx.vmap(lambda x: mx.array(np.array(x)))(x[None])
    close(mx.vmap(ours)(mx.stack([x, -x]))[1], theirs(-x), 1e-6)


def test_second_derivatives_are_mlxs_own(pair, rng):
    """A result of NumPy's has no history: gradients of gradients must not be taken through it."""
    x = drawn(rng, SIZE, SIZE) / 8

    def twice(function):
        inner = mx.grad(lambda x: mx.sum(mx.sin(function(x))))
        return mx.grad(lambda x: mx.sum(inner(x) ** 2))(x)

    close(twice(pair[0]), twice(pair[1]), 5e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1000.0, -1000.0])
def test_special_numbers_are_mlxs(value):
    x = mx.full((SIZE, SIZE), value)
    for name in ("sigmoid", "softplus"):
        ours, theirs = CASES[name]
        assert np.array_equal(np.array(ours(x))[0], np.array(theirs(x))[0], equal_nan=True)


def test_numbers_are_not_copied(rng):
    x = drawn(rng, 3, 4)
    (seen,) = host.numbers(x.T)
    assert seen.strides == (4, 16)
    assert host.numbers(x.astype(mx.float16)) is None
