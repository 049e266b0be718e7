"""Runs that lie in the data they learn from, and are resumed from another folder."""

import os
import subprocess
import sys

from helix_plugin_lm.runs import RunFolder
from helix_plugin_training import resume, train
from helix_plugin_training.recipes import load_recipe, parse_recipe

RECIPE = """\
name = "tiny"
model = { d_model = 8, n_layers = 1, mixer = { name = "mamba", d_state = 2 } }
data = { source = ".", validation = 0.3 }
training = { steps = 2, batch_size = 2, seq_len = 16 }
sample = { max_bytes = 4 }
backend = { name = "cpu" }
"""


def test_a_run_inside_its_own_relative_source_is_resumed_from_elsewhere(tmp_path, monkeypatch):
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"file {i}: " + "text " * 30)
    monkeypatch.chdir(tmp_path)
    train(parse_recipe(RECIPE, "r.toml"))
    run = train(parse_recipe(RECIPE, "r.toml", ["seed=1"]))
    assert load_recipe(run.recipe_file).data.source == str(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = RunFolder.open(os.path.relpath(tmp_path / run.path))
    resumed = resume(run, load_recipe(run.recipe_file, ["training.steps=3"]))
    assert [line["step"] for line in resumed.metrics() if "loss" in line] == [1, 2, 3]


def test_a_run_is_finished_though_nobody_can_be_told(tmp_path):
    (tmp_path / "a.txt").write_text("text " * 30)
    (tmp_path / "r.toml").write_text(RECIPE.replace('"."', f'"{tmp_path}/a.txt"'))
    command = f'"{sys.executable}" -W error -m helix_core.cli.main train {tmp_path}/r.toml --runs {tmp_path}/runs'
    for streams in (">&- 2>&-", "2>/dev/full", "2>&1 | :"):
        subprocess.run(["sh", "-c", f"{command} {streams}"], check=True, timeout=120)
    runs = [*(tmp_path / "runs").iterdir()]
    assert [(run / "summary.json").is_file() for run in runs] == [True] * 3
