"""Ternary weights: every shape comes back, bits lie where the documentation says, damage is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_core.errors import UsageError
from helix_core.ops.ternary import pack_ternary, unpack_ternary


@given(st.integers(1, 9), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_every_shape_comes_back(rows, columns, seed):
    weight = np.random.default_rng(seed).integers(-1, 2, size=(rows, columns))
    packed, scale = pack_ternary(weight, 1.0)
    assert packed.shape == (rows, -(-columns // 4))
    assert (packed.dtype, scale.dtype, scale.shape) == (np.uint8, np.float32, ())
    assert np.array_equal(unpack_ternary(packed, columns), weight)


def test_bits_lie_plane_after_plane():
    """Six columns: two bytes, of columns 0, 2, 4 and none, and 1, 3, 5 and none; codes are w + 1."""
    packed, _ = pack_ternary([[-1, 0, 1, 1, 0, -1]], 1.0)
    assert packed.tolist() == [[0 | 2 << 2 | 1 << 4 | 1 << 6, 1 | 2 << 2 | 0 << 4 | 1 << 6]]


def test_the_scale_is_the_mean_size_and_half_of_it_becomes_zero():
    weight = np.array([[3.0, -1.0, 0.0, 4.0]])  # mean size 2
    packed, scale = pack_ternary(weight)
    assert scale == 2
    assert unpack_ternary(packed, 4).tolist() == [[1, 0, 0, 1]]  # -1 is a tie, and goes to the even 0
    assert pack_ternary(np.zeros((2, 3)))[1] == np.float32(1e-5)


@pytest.mark.parametrize("weight", [np.ones(3), np.ones((2, 0)), np.array([[1.0, np.nan]]), np.array([[np.inf]])])
def test_what_is_no_matrix_of_numbers_is_refused(weight):
    with pytest.raises(UsageError, match="cannot be packed"):
        pack_ternary(weight)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_positive(scale):
    with pytest.raises(UsageError, match="positive"):
        pack_ternary(np.ones((2, 2)), scale)


def test_other_arrays_are_no_packed_weights():
    packed, _ = pack_ternary(np.ones((3, 10)))
    with pytest.raises(UsageError, match="not int32"):
        unpack_ternary(packed.astype(np.int32), 10)
    for columns in (8, 13, 0):
        with pytest.raises(UsageError, match=f"not those of {columns} columns"):
            unpack_ternary(packed, columns)


def test_an_illegal_code_is_found():
    packed, _ = pack_ternary(np.zeros((3, 10)))
    packed[2, 1] |= 0b1100  # byte 1 of a row of 3 bytes holds columns 1, 4, 7
    with pytest.raises(UsageError, match=r"code 3.* in row 2, column 4"):
        unpack_ternary(packed, 10)
