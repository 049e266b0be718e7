"""Outputs of metal's kernels in half precision that the op kit sees only as wide as they may be: sums and caches."""

import mlx.core as mx
import numpy as np
import pytest

from helix_core import create
from helix_core.ops import OPS

UNIT = {"float16": 2**-11, "bfloat16": 2**-8}


def rounded(rng, dtype, *shape):
    return mx.array(rng.normal(size=shape).astype(np.float32)).astype(getattr(mx, dtype))


def exact(array):
    return np.array(array.astype(mx.float32)).astype(np.float64)


@pytest.mark.parametrize("dtype", UNIT)
def test_a_residual_sum_is_rounded_once(dtype, rng):
    F = create("backend", "metal").bind(dtype=dtype, mode="infer")
    x, residual, weight = (rounded(rng, dtype, *shape) for shape in ((3, 7, 33), (3, 7, 33), (33,)))
    y, total = F.add_rms_norm(x, residual, weight)
    wanted_y, wanted = OPS["add_rms_norm"].reference(np, *map(exact, (x, residual, weight)))
    assert total.dtype == y.dtype == x.dtype
    assert np.abs(exact(total) - wanted).max() <= UNIT[dtype] * np.abs(wanted).max()
    assert np.abs(exact(y) - wanted_y).max() <= 2 * UNIT[dtype] * np.abs(wanted_y).max()


@pytest.mark.parametrize("cache_dtype", ["float32", None])
@pytest.mark.parametrize("dtype", UNIT)
def test_attention_keeps_keys_and_values_as_they_were(dtype, cache_dtype, rng):
    """Whatever the cache is stored in: a key of half precision fits into float32, too."""
    F = create("backend", "metal").bind(dtype=dtype, mode="infer")
    q, k, v = (rounded(rng, dtype, 2, 9, heads, 8) for heads in (4, 2, 2))
    keys, values = (rounded(rng, cache_dtype or dtype, 2, 5, 2, 8) for _ in "kv")
    position = mx.array(np.arange(3, 12)[None].repeat(2, 0))
    _, last_keys, last_values = F.attention(q, k, v, position, keys, values, window=5)
    for found, new in ((last_keys, k), (last_values, v)):
        assert str(found.dtype) == f"mlx.core.{cache_dtype or dtype}"
        # Positions 7 to 11 lie in the slots position % 5.
        assert np.array_equal(exact(found), np.stack([exact(new)[:, p - 3] for p in (10, 11, 7, 8, 9)], 1))
