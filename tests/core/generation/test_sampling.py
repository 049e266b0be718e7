"""Sampling from logits."""

import numpy as np
import pytest

from helix_core.errors import UsageError
from helix_core.generation import Sampling

LOGITS = np.log(np.array([0.1, 0.4, 0.3, 0.2]))


def test_temperature_zero_is_greedy():
    rng = np.random.default_rng()
    assert {Sampling(0).pick(LOGITS, rng) for _ in range(50)} == {1}


def test_plain_sampling_follows_the_distribution():
    rng = np.random.default_rng()
    counts = np.bincount([Sampling().pick(LOGITS, rng) for _ in range(20_000)], minlength=4)
    expected = 20_000 * np.array([0.1, 0.4, 0.3, 0.2])
    # χ² with 3 degrees of freedom exceeds 30 with probability 1e-6.
    assert np.sum((counts - expected) ** 2 / expected) < 30


def test_temperature_sharpens():
    p = Sampling(0.5).probabilities(LOGITS)
    squared = np.array([0.01, 0.16, 0.09, 0.04])
    assert np.allclose(p, squared / squared.sum())


def test_top_k_keeps_the_likeliest():
    assert np.allclose(Sampling(top_k=2).probabilities(LOGITS), [0, 4 / 7, 3 / 7, 0])


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, [1]), (0.41, [1, 2]), (0.75, [1, 2, 3]), (1.0, [0, 1, 2, 3])])
def test_top_p_keeps_the_smallest_head_that_reaches_it(top_p, kept):
    assert np.flatnonzero(Sampling(top_p=top_p).probabilities(LOGITS)).tolist() == kept


def test_large_logits_do_not_overflow():
    p = Sampling(0.1).probabilities(np.array([1e4, 0.0, -1e4], np.float32))
    assert np.allclose(p, [1, 0, 0])


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Sampling(**bad)
