"""Any mask becomes right padding and back."""

import array_api_compat.torch as torch_namespace
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helix_plugin_lm.models.padding import pack_left, reorder

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 12)))


@pytest.mark.parametrize("namespace", ["numpy", "torch"])
@given(mask=MASKS)
def test_real_tokens_move_to_the_front_in_order_and_back(namespace, mask):
    xp, wrap = (np, np.asarray) if namespace == "numpy" else (torch_namespace, torch.from_numpy)
    tokens = np.arange(mask.size).reshape(mask.shape)
    order, inverse, lengths = pack_left(xp, wrap(mask))
    moved = np.asarray(reorder(xp, wrap(tokens), order))
    for row in range(len(mask)):
        n = int(lengths[row])
        assert n == mask[row].sum()
        assert moved[row, :n].tolist() == tokens[row][mask[row]].tolist()
    assert np.array_equal(np.asarray(reorder(xp, wrap(moved), inverse)), tokens)
    features = np.random.default_rng(0).normal(size=(*mask.shape, 2))
    there = reorder(xp, wrap(features), order)
    assert np.array_equal(np.asarray(reorder(xp, there, inverse)), features)
