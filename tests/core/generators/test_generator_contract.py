"""Streams, field specs and fingerprints."""

import numpy as np
import pytest

from helix_core.errors import UsageError
from helix_core.kinds.generator import FieldSpec, digest, stream


def test_streams_are_philox_at_the_counter_of_the_index():
    """The numbers of Philox 4x64, with the sample's index in the counter's last word: fixed for all time."""
    assert stream(5, 9).bit_generator.state["state"]["counter"].tolist() == [0, 0, 0, 9]
    assert stream(5, 9).bit_generator.state["state"]["key"][0] == 5
    assert stream(1, 2).bit_generator.random_raw(2).tolist() == [12711166340647740500, 17577792573827446714]


def test_streams_do_not_meet():
    draws = [
        tuple(stream(seed, index, purpose).integers(2**63, size=4).tolist())
        for seed in (0, 1, 2**64 - 1)
        for index in (0, 1, 2**62, 2**64 - 1)
        for purpose in ("sample", "world")
    ]
    assert len(set(draws)) == len(draws)


def test_neighbouring_streams_are_uncorrelated():
    x = np.stack([stream(0, i).normal(size=2000) for i in range(20)])
    correlations = np.corrcoef(x)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)])
def test_out_of_range(seed, index):
    with pytest.raises(UsageError, match=r"not in \[0, 2\*\*64\)"):
        stream(seed, index)


@pytest.mark.parametrize(("dtype", "shape"), [("float16", ()), ("str", (3,)), ("int64", (2, None)), ("object", ())])
def test_fields_that_cannot_be_stored(dtype, shape):
    with pytest.raises(ValueError, match="cannot be stored"):
        FieldSpec(dtype, shape)


def test_a_value_off_its_spec_is_named():
    spec = FieldSpec("float32", (None, 2))
    assert spec.problem(np.zeros((5, 2), np.float32)) is None
    assert "dtype float64" in spec.problem(np.zeros((5, 2)))
    assert "shape (5, 3)" in spec.problem(np.zeros((5, 3), np.float32))
    assert "not finite" in spec.problem(np.full((1, 2), np.nan, np.float32))
    assert FieldSpec("float32", (2,), nan=True).problem(np.array([np.nan, 1], np.float32)) is None
    assert "not finite" in FieldSpec("float32", (2,), nan=True).problem(np.array([np.inf, 1], np.float32))
    assert "not str" in FieldSpec("str").problem(3)
    assert "not a NumPy array" in spec.problem([1])


def test_a_fingerprint_sees_everything_but_the_order_of_fields():
    sample = {"a": np.arange(4), "b": "text"}
    same = {"b": "text", "a": np.arange(4)}
    assert digest([sample]) == digest([same])
    others = [
        {**sample, "a": np.arange(4).astype(np.int32)},
        {**sample, "a": np.arange(4).reshape(2, 2)},
        {**sample, "a": np.array([0, 1, 2, 4])},
        {**sample, "b": "texT"},
        {"c": np.arange(4), "b": "text"},
    ]
    assert len({digest([s]) for s in [sample, *others]}) == 6
    assert digest([sample, sample]) != digest([sample])
    big_endian = {**sample, "a": np.arange(4).astype(">i8")}
    assert digest([big_endian]) == digest([sample])
