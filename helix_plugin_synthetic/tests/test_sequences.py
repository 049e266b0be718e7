"""Each task's answers, found again by other means; each process's statistics, against what it was told to be."""

import re

import numpy as np
import pytest
from scipy import stats

from helix_core.plugin_system import create
from helix_plugin_synthetic.sequences.listops import NAMES

N = 40


def make(name, **options):
    return create("generator", f"synthetic/{name}", **options)


def samples(name, seed=0, n=N, **options):
    made = make(name, **options)
    return [made.sample(seed, i) for i in range(n)]


def scored(sample):
    return sample["targets"][sample["mask"]]


def test_copying():
    for sample in samples("copying", tokens=7, lag=20):
        assert scored(sample).tolist() == sample["inputs"][:7].tolist()
        assert (sample["inputs"][7:27] == 0).all()
        assert (sample["inputs"][27:] == 1).all()


def test_selective_copying_scatters_its_tokens_evenly():
    places = np.zeros(50)
    for sample in samples("selective-copying", context=50, tokens=5, n=400):
        context = sample["inputs"][:50]
        assert scored(sample).tolist() == context[context > 1].tolist()
        assert len(scored(sample)) == 5
        places += context > 1
    assert stats.chisquare(places).pvalue > 1e-3


def test_induction_heads():
    for sample in samples("induction-heads"):
        first, last = np.flatnonzero(sample["inputs"] == 0)
        assert last == 255
        assert scored(sample).tolist() == [sample["inputs"][first + 1]]


@pytest.mark.parametrize("filler", [True, False])
def test_associative_recall(filler):
    for sample in samples("associative-recall", random_filler=filler):
        inputs = sample["inputs"]
        pairs = dict(zip(inputs[:32:2].tolist(), inputs[1:32:2].tolist(), strict=True))
        assert len(pairs) == 16
        asked = inputs[sample["mask"]].tolist()
        assert sorted(asked) == sorted(pairs)
        assert scored(sample).tolist() == [pairs[key] for key in asked]
        assert all(0 < key < 4096 <= value for key, value in pairs.items())


def test_recall_gaps_follow_the_power_law():
    """The first query's gap, with one pair: p(g) ~ g^(a-1)."""
    found = [
        int(np.flatnonzero(s["mask"])[0] - 2) // 2 for s in samples("associative-recall", n=3000, pairs=1, power=0.3)
    ]
    weights = np.arange(1, 128) ** -0.7
    edges = [0, 1, 2, 4, 8, 16, 32, 64, 127]
    expected = np.add.reduceat(weights / weights.sum(), edges[:-1]) * 3000
    assert stats.chisquare(np.histogram(found, edges)[0], expected).pvalue > 1e-3


def evaluate_listops(text):
    """By rewriting innermost lists until a digit is left."""
    operators = {"MAX": max, "MIN": min, "MED": lambda v: int(np.median(v)), "SM": lambda v: sum(v) % 10}

    def one(match):
        return str(operators[match[1]]([int(v) for v in match[2].split()]))

    while "[" in text:
        text = re.sub(r"\[(\w+)((?: \d)+) \]", one, text)
    return int(text)


def test_listops():
    depths, answers = set(), []
    for sample in samples("listops", n=300):
        (end,) = np.flatnonzero(sample["mask"])
        words = [NAMES[t] for t in sample["inputs"]]
        assert words[end] == "="
        assert set(words[end + 1 :]) <= {"_"}
        assert evaluate_listops(" ".join(words[:end])) == sample["targets"][end]
        depths.add(int(np.max(np.cumsum([w.startswith("[") - (w == "]") for w in words]))))
        answers.append(sample["targets"][end])
    assert max(depths) >= 4
    assert set(answers) == set(range(10))


def test_dyck():
    deepest = 0
    for sample in samples("dyck", kinds=3, max_depth=6, n=100):
        stack = []
        for token, target, mask in zip(sample["inputs"], sample["targets"], sample["mask"], strict=True):
            if token < 3:
                stack.append(token)
            else:
                assert stack.pop() == token - 3
            assert mask == bool(stack)
            assert not stack or target == stack[-1] + 3
            deepest = max(deepest, len(stack))
        assert not stack
    assert deepest == 6


@pytest.mark.parametrize("modulus", [2, 7])
def test_parity(modulus):
    for sample in samples("parity", seq_len=30, modulus=modulus):
        assert sample["mask"].all()
        assert set(sample["inputs"].tolist()) <= set(range(modulus))
        for t, target in enumerate(sample["targets"].tolist()):
            assert target == sum(sample["inputs"][: t + 1].tolist()) % modulus


@pytest.mark.parametrize(
    "options", [{}, {"modulus": 97, "terms": 2}, {"terms": 20, "modulus": 7, "operators": ["*", "-"]}]
)
def test_modular_arithmetic(options):
    m = options.get("modulus", 5)
    for sample in samples("modular-arithmetic", **options):
        text = "".join(str(t) if t < m else "+-*="[t - m] for t in sample["inputs"])
        assert text.endswith("=")
        assert scored(sample).tolist() == [eval(text[:-1]) % m]


def test_pcfg_derives_its_sentences():
    made = make("pcfg", seq_len=60)
    world = made.world(4)
    for index in range(N):
        sample = made.sample(4, index)
        tokens = [sample["inputs"][0], *sample["targets"]]
        found, stack, rules = [], [], iter(sample["rules"].tolist())
        while len(found) < 61:
            if not stack:
                stack = [("end",), 0]
            top = stack.pop()
            if top == ("end",):
                found.append(0)
                continue
            rule = next(rules)
            assert rule // 4 == top
            right = world.rules[rule]
            if len(right) == 2:
                stack += [right[1], right[0]]
            else:
                found.append(right[0])
        assert found == tokens
        assert next(rules, None) is None


def test_pcfg_chooses_rules_as_often_as_it_says():
    made = make("pcfg", seq_len=400)
    used = np.concatenate([made.sample(2, i)["rules"] for i in range(100)])
    counts = np.bincount(used, minlength=32).reshape(8, 4)
    expected = made.world(2).probabilities * counts.sum(1, keepdims=True)
    kept = expected.min(1) >= 5
    assert kept.sum() >= 3
    statistic = ((counts - expected) ** 2 / expected)[kept].sum()
    assert stats.chi2.sf(statistic, 3 * kept.sum()) > 1e-3


def test_zipf_frequencies():
    made = make("zipf", vocab_size=50, exponent=1.2, shift=1.5, seq_len=999)
    tokens = np.concatenate([made.sample(0, i)["targets"] for i in range(30)])
    weights = 1 / (np.arange(1, 51) + 1.5) ** 1.2
    assert stats.chisquare(np.bincount(tokens, minlength=50), weights / weights.sum() * len(tokens)).pvalue > 1e-3


@pytest.mark.parametrize("order", [1, 2])
def test_markov_transitions_and_stationarity(order):
    made = make("markov", vocab_size=4, order=order, seq_len=500, concentration=1.0)
    chain = made.world(1)
    assert np.allclose(chain.transitions.sum(-1), 1)
    rows = np.stack([np.r_[s["inputs"], s["targets"][-1]] for s in (made.sample(1, i) for i in range(200))])
    contexts = sum(rows[:, i : i - order] * 4 ** (order - 1 - i) for i in range(order))
    counts = np.zeros((4**order, 4))
    np.add.at(counts, (contexts, rows[:, order:]), 1)
    expected = chain.transitions.reshape(-1, 4) * counts.sum(1, keepdims=True)
    kept = expected.min(1) >= 5
    statistic = ((counts - expected) ** 2 / expected)[kept].sum()
    assert stats.chi2.sf(statistic, 3 * kept.sum()) > 1e-3
    # The first context of a sample is as stationary as any other.
    firsts = np.bincount(contexts[:, 0], minlength=4**order)
    expected = chain.stationary.ravel() * 200
    big = expected >= 5
    pooled = [np.r_[v[big], v[~big].sum() + 1e-9] for v in (firsts, expected)]
    assert stats.chisquare(pooled[0], pooled[1] * pooled[0].sum() / pooled[1].sum()).pvalue > 1e-3


def test_the_entropy_rate_is_that_of_the_chain():
    made = make("markov", vocab_size=6, seq_len=2000)
    chain = made.world(9)
    sample = [made.sample(9, i) for i in range(20)]
    bits = [-np.log2(chain.transitions[s["inputs"], s["targets"]]) for s in sample]
    assert np.mean(bits) == pytest.approx(chain.entropy_rate, rel=0.03)


def test_a_seed_is_a_world():
    made = make("markov")
    assert not np.allclose(made.world(0).transitions, made.world(1).transitions)
    assert np.array_equal(made.world(0).transitions, make("markov").world(0).transitions)
