"""Sampling from logits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_core.errors import GenerationError, UsageError
from helix_plugin_lm.generation import Sampling

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


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"min_p": math.nan},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"presence_penalty": math.nan},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Sampling(**bad)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def by_definition(logits, counts, s):
    """The documented rules in their order, one token at a time."""
    scores = []
    for logit, n in zip(logits.astype(float), counts, strict=True):
        if n:
            logit = logit / s.repetition_penalty if logit > 0 else logit * s.repetition_penalty
        scores.append(logit - s.frequency_penalty * n - (s.presence_penalty if n else 0))
    if s.temperature == 0:
        return np.eye(len(scores))[int(np.argmax(scores))]
    p = softmax(np.array(scores) / s.temperature)
    ranked = sorted(range(len(p)), key=lambda i: (-scores[i], i))
    if s.top_k is not None:
        ranked = ranked[: s.top_k]
    if s.top_p is not None:
        mass = sum(p[i] for i in ranked)
        kept, held = [], 0.0
        for i in ranked:
            if kept and held >= s.top_p * mass:
                break
            kept.append(i)
            held += p[i]
        ranked = kept
    if s.min_p is not None:
        ranked = [i for i in ranked if p[i] >= s.min_p * p[ranked[0]]]
    return np.array([p[i] if i in set(ranked) else 0 for i in range(len(p))]) / sum(p[i] for i in ranked)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_rule_is_its_definition(data):
    size = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    logits = rng.normal(size=size, scale=data.draw(st.sampled_from([0.1, 2.0, 20.0]))).astype(np.float32)
    counts = rng.integers(4, size=size)
    maybe = st.none()
    sampling = Sampling(
        temperature=data.draw(st.sampled_from([0.0, 0.3, 1.0, 2.5])),
        top_k=data.draw(maybe | st.integers(1, 50)),
        top_p=data.draw(maybe | st.floats(0.01, 0.99)),
        min_p=data.draw(maybe | st.floats(0.0, 0.99)),
        repetition_penalty=data.draw(st.sampled_from([1.0, 1.3, 0.7])),
        frequency_penalty=data.draw(st.sampled_from([0.0, 0.4, -0.2])),
        presence_penalty=data.draw(st.sampled_from([0.0, 0.9])),
    )
    found, expected = sampling.probabilities(logits, counts), by_definition(logits, counts, sampling)
    assert found.sum() == pytest.approx(1)
    assert np.allclose(found, expected, atol=1e-9)
    assert found[sampling.pick(logits, rng, counts)] > 0


def test_the_same_as_transformers():
    process = pytest.importorskip("transformers.generation.logits_process")
    import torch

    rng = np.random.default_rng(0)
    for _ in range(50):
        logits = rng.normal(size=60, scale=3).astype(np.float32)
        text = rng.integers(60, size=12)
        penalty, temperature = float(rng.uniform(0.6, 2)), float(rng.uniform(0.3, 2))
        k, top_p, min_p = int(rng.integers(1, 60)), float(rng.uniform(0.05, 0.99)), float(rng.uniform(0.01, 0.5))
        scores, ids = torch.from_numpy(logits.copy())[None].double(), torch.from_numpy(text)[None]
        for step in (
            process.RepetitionPenaltyLogitsProcessor(penalty),
            process.TemperatureLogitsWarper(temperature),
            process.TopKLogitsWarper(k),
            process.TopPLogitsWarper(top_p),
            process.MinPLogitsWarper(min_p),
        ):
            scores = step(ids, scores)
        ours = Sampling(temperature, k, top_p, min_p, repetition_penalty=penalty)
        found = ours.probabilities(logits, np.bincount(text, minlength=60))
        assert np.allclose(found, scores.softmax(-1)[0].numpy(), atol=1e-6)


def test_greedy_takes_the_first_of_equals_and_minds_penalties():
    logits, counts = np.array([1.0, 3.0, 3.0]), np.array([0, 1, 0])
    rng = np.random.default_rng(0)
    assert Sampling(0).pick(logits, rng, counts) == 1
    assert Sampling(0, presence_penalty=0.1).pick(logits, rng, counts) == 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("value", "match"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_logits_that_are_no_numbers_are_refused(temperature, value, match):
    logits = np.array([0.0, value, 1.0])
    with pytest.raises(GenerationError, match=match):
        Sampling(temperature).pick(logits, np.random.default_rng(0))


def test_forbidden_tokens_are_never_drawn_but_one_must_be_left():
    rng = np.random.default_rng(0)
    logits = np.array([-np.inf, 0.0, -np.inf])
    for sampling in (Sampling(), Sampling(0), Sampling(1e-300), Sampling(min_p=0.0), Sampling(repetition_penalty=2.0)):
        assert {sampling.pick(logits, rng, np.ones(3, int)) for _ in range(20)} == {1}
    with pytest.raises(GenerationError, match="-inf everywhere"):
        Sampling().pick(np.full(3, -np.inf), rng)
