"""Dropout and stochastic depth: seeded, the same on every backend and after a resume, absent from inference."""

import numpy as np
import pytest

import helix_core
from helix_core.errors import ConfigError
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
from helix_plugin_lm.runs.checkpoint import load_checkpoint
from helix_plugin_training import Trainer
from helix_plugin_training.data import load_corpus
from helix_plugin_training.recipes import parse_recipe

RECIPE = """
name = "t"
[model]
d_model = 12
n_layers = 2
mixer = [{ name = "mamba", d_state = 4 }, { name = "s4d", d_state = 4 }]
dropout = 0.2
stochastic_depth = 0.3
[training]
steps = 6
batch_size = 4
seq_len = 24
accumulation = 2
[backend]
name = "cpu"
"""


@pytest.fixture
def corpus(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"document {i}: " + "all work and no play " * (5 + i))
    return load_corpus(str(tmp_path), 0.3)


def trainer(corpus, *overrides):
    return Trainer(parse_recipe(RECIPE, "r.toml", overrides), corpus)


def test_a_resumed_run_drops_what_the_uninterrupted_one_dropped(corpus, tmp_path):
    whole = trainer(corpus)
    losses = [whole.advance(6).loss for _ in range(6)]
    assert trainer(corpus).advance(6).loss == losses[0]
    first = trainer(corpus)
    for _ in range(3):
        first.advance(6)
    path = first.save(tmp_path / "checkpoints")
    second = trainer(corpus)
    second.restore(load_checkpoint(path), path)
    assert [second.advance(6).loss for _ in range(3)] == losses[3:]
    assert trainer(corpus, "seed=1").advance(6).loss != losses[0]


def test_steps_and_micro_batches_drop_different_things(corpus):
    """On one batch, whose loss is the same wherever nothing is dropped."""

    def losses(*overrides):
        found = []
        for accumulation in (1, 2):
            one = trainer(corpus, f"training.accumulation={accumulation}", *overrides)
            batch = one.batches(0, 0)
            one.batches = lambda step, part, batch=batch: batch
            found += [float(one.gradient(step)[0]) for step in range(3)]
        return found

    assert len(set(losses())) == 6
    assert len(set(losses("model.dropout=0", "model.stochastic_depth=0"))) == 1


@pytest.mark.parametrize("options", [{"dropout": 0.4}, {"stochastic_depth": 0.9}])
def test_without_a_key_nothing_is_dropped_and_every_backend_drops_the_same(options):
    config = {"d_model": 8, "n_layers": 2, "mixer": {"name": "mamba", "d_state": 4}}
    plain = LanguageModel(ModelConfig.model_validate(config))
    model = LanguageModel(ModelConfig.model_validate(config | options))
    tokens = np.random.default_rng(0).integers(256, size=(6, 9))
    found = {}
    for name in ("reference", "cpu"):
        backend = helix_core.create("backend", name)
        F = backend.bind(mode="infer")
        params = {k: backend.asarray(v) for k, v in model.init(0).items()}
        fed = backend.asarray(tokens)
        assert np.array_equal(
            backend.to_numpy(model.apply(F, params, fed)[0]), backend.to_numpy(plain.apply(F, params, fed)[0])
        )
        found[name] = [
            backend.to_numpy(model.apply(F, params, fed, key=backend.asarray(np.array([key])))[0]) for key in (3, 3, 4)
        ]
        assert np.array_equal(found[name][0], found[name][1])
        assert not np.allclose(found[name][0], found[name][2])
    np.testing.assert_allclose(found["cpu"][0], found["reference"][0], atol=1e-5)


def test_dropout_drops_the_share_asked_for_and_keeps_the_mean():
    F = helix_core.create("backend", "reference").bind(dtype="float64")
    x = np.ones((50, 2000))
    rows = [F.dropout(x, np.array([key]), rate=0.3) for key in range(5)]
    for y in rows:
        assert abs(np.mean(y == 0) - 0.3) < 5 * np.sqrt(0.21 / y.size)
        assert np.allclose(y[y != 0], 1 / 0.7)
    # Keys next to each other, and elements next to each other, are dropped independently.
    dropped = [(y == 0).ravel() - 0.3 for y in rows]
    for a, b in ((dropped[0], dropped[1]), (dropped[0][1:], dropped[0][:-1]), (dropped[0][2000:], dropped[0][:-2000])):
        assert abs(np.mean(a * b)) < 5 * 0.21 / np.sqrt(a.size)


def test_a_skipped_row_is_skipped_whole_and_deeper_blocks_more_often():
    config = {"d_model": 8, "n_layers": 4, "mixer": {"name": "mamba"}, "stochastic_depth": 0.8}
    model = LanguageModel(ModelConfig.model_validate(config))
    assert [block.skip for block in model.blocks] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    F = helix_core.create("backend", "reference").bind(dtype="float64")
    x = np.random.default_rng(0).normal(size=(200, 5, 8))
    whole, skipped = (model.run_block(F, model.init(0), 3, x, None, key=key)[0] for key in (None, np.array([1])))
    gone = (skipped == 0).all((1, 2))
    assert 0.7 < np.mean(gone) < 0.9
    np.testing.assert_allclose(skipped[~gone], 5 * whole[~gone])


def test_chunks_drop_the_same_on_both_ways(corpus):
    """The gradient of a run in chunks is that of its own loss: a step along it, computed again, goes down as told."""
    one = trainer(corpus, "training.chunk=8", "training.accumulation=1")
    before = one.params
    value, grads = one.gradient(0)
    assert float(value) == float(one.gradient(0)[0])
    norm = sum(float((g**2).sum()) for g in grads.values()) ** 0.5
    values = []
    for size in (1e-3 / norm, -1e-3 / norm):
        one.params = {name: p + size * grads[name] for name, p in before.items()}
        values.append(float(one.gradient(0)[0]))
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(norm, rel=0.02)


def test_dropping_everything_is_refused():
    with pytest.raises(ConfigError, match="dropout"):
        parse_recipe(RECIPE, "r.toml", ["model.dropout=1.0"])


def test_the_loss_takes_the_key():
    backend = helix_core.create("backend", "reference")
    model = LanguageModel(
        ModelConfig.model_validate({"d_model": 8, "n_layers": 1, "mixer": {"name": "mamba"}, "dropout": 0.5})
    )
    F, params = backend.bind(dtype="float64"), model.init(0)
    tokens = np.arange(20).reshape(2, 10)
    assert loss(model, F, params, tokens, tokens) != loss(model, F, params, tokens, tokens, key=np.array([1]))
