"""Training on MLX beside the cpu backend, whatever the options; checkpoints that travel both ways; the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from helix_core import create
from helix_plugin_lm.runs.checkpoint import load_checkpoint
from helix_plugin_training import Trainer
from helix_plugin_training.data import load_corpus
from helix_plugin_training.recipes import parse_recipe

RECIPE = """
name = "t"
[model]
d_model = 16
n_layers = 2
mixer = {{ name = "mamba", d_state = 4 }}
[data]
source = "{data}"
validation = 0.2
[training]
steps = {steps}
batch_size = 2
seq_len = 48
checkpoint_every = 5
[optimizer]
name = "adamw"
lr = 3e-3
[sample]
max_bytes = 20
[backend]
name = "{backend}"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i in range(8):
        (folder / f"{i}.txt").write_text(f"line {i}: the quick brown fox jumps over the lazy dog\n" * 20)
    return folder


def trainer(data, backend, options=()):
    text = RECIPE.format(data=data, steps=50, backend=backend)
    return Trainer(parse_recipe(text, "r.toml", options), load_corpus(str(data), 0.2))


@pytest.mark.parametrize(
    "options",
    [
        ["training.chunk=16"],
        ["model.reversible=true", 'model.mlp={name="swiglu"}'],
        ["model.dropout=0.2", "model.stochastic_depth=0.2"],
        ["data.reset=true", "training.accumulation=2", "training.clip=0.5"],
    ],
    ids=["chunks", "reversible", "dropout", "documents"],
)
def test_every_way_of_training_is_that_of_the_cpu_backend(data, options):
    losses = []
    for backend in ("metal", "cpu"):
        run = trainer(data, backend, options)
        losses.append([run.advance(50).loss for _ in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def helix(*args):
    command = [sys.executable, "-W", "error", "-m", "helix_core.cli.main", *map(str, args)]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_checkpoints_move_between_backends(data, tmp_path):
    """Ten steps on metal, ten on cpu, ten on metal: the curve is that of thirty on cpu."""
    expected = trainer(data, "cpu")
    losses = [expected.advance(50).loss for _ in range(30)]
    found: list[float] = []
    folder = None
    for leg, backend in enumerate(("metal", "cpu", "metal")):
        run = trainer(data, backend)
        if folder:
            run.restore(load_checkpoint(folder), folder)
        found += [run.advance(50).loss for _ in range(10)]
        folder = run.save(tmp_path / str(leg))
    assert found == pytest.approx(losses, rel=1e-3)


def test_mlx_reads_a_checkpoint(data, tmp_path):
    run = trainer(data, "cpu")
    run.advance(50)
    module = create("backend", "metal").module(run.model, seed=9)
    module.load_weights(str(run.save(tmp_path) / "model.safetensors"))
    for name, value in module.to_numpy().items():
        assert np.array_equal(value, run.backend.to_numpy(run.params[name])), name


def test_a_run_of_the_command_line(data, tmp_path):
    """Trained on metal; scores and texts are the same on cpu."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(data=data, steps=10, backend="cpu"))
    helix("train", recipe, "--runs", tmp_path / "runs", "--set", "backend.name=metal")
    (run,) = (tmp_path / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["backend"] == "metal"
    assert summary["kernels"]["selective_scan"] == "metal/selective_scan"
    assert summary["steps"] == 10
    helix("train", "--resume", run, "--set", "training.steps=15")
    texts, scores = [], []
    for backend in ("metal", "cpu"):
        options = ("--temperature", "0", "--max-bytes", "40", "--backend", backend)
        texts.append(helix("generate", run, "--prompt", "the", *options))
        scores.append(json.loads(helix("eval", run, "--data", data, "--json", "--backend", backend))["bits_per_byte"])
    assert len(texts[0]) == 43
    assert texts[0] == texts[1]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
