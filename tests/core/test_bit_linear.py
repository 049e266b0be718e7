"""The op bit_linear as it is defined: BitNet's formula, exact sums, and errors that say what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from helix_core.errors import UsageError
from helix_core.ops.bit_linear import bit_linear
from helix_core.ops.ternary import pack_ternary


def test_it_is_bitnets_formula(rng):
    x, weight, bias = rng.normal(size=(3, 5, 21)), rng.normal(size=(4, 21)), rng.normal(size=4)
    packed, scale = pack_ternary(weight)
    gamma = np.abs(weight).mean()
    assert float(scale) == pytest.approx(gamma, rel=1e-6)
    ternary = np.clip(np.round(weight / gamma), -1, 1)
    s = 127 / np.abs(x).max(axis=-1, keepdims=True)
    expected = np.clip(np.round(x * s), -128, 127) @ ternary.T * scale / s + bias
    assert np.allclose(bit_linear(np, x, packed, scale, bias), expected)


def test_ties_go_to_the_even_level():
    x = np.array([[127.0, 0.5, 1.5, -2.5]])
    packed, scale = pack_ternary(np.eye(4), 1.0)
    assert bit_linear(np, x, packed, scale).tolist() == [[127, 0, 2, -2]]


def test_it_is_near_the_map_that_was_packed(rng):
    """Activations of eight bits lose 40 dB at most, whatever the weights are."""
    weight = rng.integers(-1, 2, size=(64, 512))
    x = rng.normal(size=(8, 512))
    exact = x @ weight.T
    error = bit_linear(np, x, *pack_ternary(weight, 1.0)) - exact
    assert 10 * np.log10((exact**2).sum() / (error**2).sum()) > 35


def test_rows_that_are_not_finite_stay_alone(rng):
    x = rng.normal(size=(3, 9))
    x[1, 4], x[2, 0] = np.nan, np.inf
    with np.errstate(invalid="ignore", divide="ignore"):
        y = bit_linear(np, x, *pack_ternary(rng.normal(size=(5, 9))))
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1:]).all()


def test_shapes_that_do_not_fit_are_refused(rng):
    packed, scale = pack_ternary(rng.normal(size=(5, 9)))
    for shape in ((2, 8), (2, 13), (2, 0), ()):
        with pytest.raises(UsageError, match="do not fit"):
            bit_linear(np, np.zeros(shape), packed, scale)
