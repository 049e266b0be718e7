"""A memory beside a language model: better where things recur, never worse where they do not."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from helix_core import create
from helix_core.cli.main import cli
from helix_core.kinds.memory import Hits
from helix_plugin_training import evaluate
from helix_plugin_training.data import Corpus
from helix_plugin_training.data.corpus import Document
from helix_plugin_training.evaluation.memory import Mixture, evaluate_with_memory, fill
from helix_plugin_training.recipes import Recipe
from helix_plugin_training.trainer import Trainer

RECIPE = {
    "name": "tiny",
    "model": {"d_model": 32, "n_layers": 1, "mixer": {"name": "mamba", "d_state": 4}},
    "training": {"steps": 40, "batch_size": 4, "seq_len": 64},
    "optimizer": {"name": "adamw", "lr": 1e-2},
}


def repetitive(rng, length):
    """Lines drawn from a few dozen random ones."""
    lines = [bytes(rng.integers(97, 123, size=rng.integers(15, 40)).tolist()) + b"\n" for _ in range(24)]
    return b"".join(lines[i] for i in rng.integers(24, size=length // 20))[:length]


def chance(rng, length):
    """Letters of a first-order chain: nothing to remember beyond what a small model learns."""
    jump = rng.dirichlet(np.full(20, 0.5), size=20).cumsum(axis=1)
    out, u = np.zeros(length, np.uint8), rng.random(length)
    for t in range(1, length):
        out[t] = min(19, int(np.searchsorted(jump[out[t - 1]], u[t])))
    return (out + 97).tobytes()


def trained(text):
    data = np.frombuffer(text, np.uint8)
    cut = len(data) - 6000
    parts = [Document(f"part-{i}", piece) for i, piece in enumerate(np.array_split(data[cut:], 3))]
    trainer = Trainer(Recipe.model_validate(RECIPE), Corpus((Document("train", data[:cut]),), tuple(parts), ""))
    for _ in range(40):
        trainer.advance(40)
    return (trainer.model, trainer.backend, trainer.F_infer, trainer.params), trainer.data


@pytest.mark.parametrize(("make", "best"), [(repetitive, 0.75), (chance, 1.005)])
def test_bits_per_byte_with_and_without(make, best, monkeypatch):
    model, corpus = trained(make(np.random.default_rng(0), 30_000))
    memory = create("memory", "topological", dim=32)
    assert fill(memory, *model, corpus.train, 8000) == len(memory) == 8000
    sleeps, consolidate = [], memory.consolidate
    monkeypatch.setattr(memory, "consolidate", lambda: sleeps.append(consolidate()))
    found = evaluate_with_memory(memory, *model, corpus.validation)
    alone = evaluate(*model, corpus.validation)
    assert found.model_bits_per_byte == pytest.approx(alone.bits_per_byte, rel=1e-5)
    assert found.bits_per_byte < best * found.model_bits_per_byte
    assert found.bytes == 6000
    (sleep,) = sleeps
    assert len(memory) == 8000 + found.bytes - sleep["merged"], "it learned what it coded"


def test_the_mixture_is_a_distribution_and_learns_whom_to_trust(rng):
    mixture, model = Mixture(), rng.dirichlet(np.ones(5), size=40)
    ids = np.tile(np.arange(3), (40, 1))
    ids[7:9] = -1
    hits = Hits(ids, -np.sort(rng.random((40, 3)).astype(np.float32)), rng.integers(5, size=(40, 3)))
    total = np.zeros(40)
    for token in range(5):
        p, share = Mixture()(model[:, token], hits, np.full(40, token))
        total += p
        assert (share[7:9] == 0).all()
    assert np.allclose(total, 1)
    right = np.ones(40, np.int64)
    good = Hits(np.zeros((40, 3), np.int64), np.full((40, 3), 0.99, np.float32), np.ones((40, 3), np.int64))
    bad = Hits(good.ids, good.scores, np.full((40, 3), 2))
    for hits, trusted in ((good, True), (bad, False)):
        mixture = Mixture()
        for _ in range(30):
            _, share = mixture(np.full(40, 0.3), hits, right)
        assert (share > 0.8).all() if trusted else (share < 0.02).all()


def test_helix_eval_reports_both(tmp_path):
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    text = repetitive(rng, 20_000)
    for i in range(8):
        (data / f"{i}.txt").write_bytes(text[i * 2500 : (i + 1) * 2500])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'name = "t"\n[model]\nd_model = 16\nn_layers = 1\nmixer = {{ name = "mamba", d_state = 4 }}\n'
        f'[data]\nsource = "{data}"\nvalidation = 0.2\n[training]\nsteps = 8\nbatch_size = 2\nseq_len = 32\n'
        "[sample]\nmax_bytes = 0\n"
    )
    runner = CliRunner()
    done = runner.invoke(
        cli, ["train", str(recipe), "--runs", str(tmp_path / "runs"), "--json"], catch_exceptions=False
    )
    run = json.loads(done.stdout)["run"]
    args = ["eval", run, "--data", str(data / "0.txt"), "--memory", "topological", "--memory-bytes", "2000"]
    plain = runner.invoke(cli, args, catch_exceptions=False)
    assert "bits/byte with memory topological of" in plain.stdout
    found = json.loads(runner.invoke(cli, [*args, "--json"], catch_exceptions=False).stdout)
    assert found["memory"]["model_bits_per_byte"] == pytest.approx(found["bits_per_byte"], rel=1e-4)
    assert found["memory"]["bits_per_byte"] < found["bits_per_byte"]
