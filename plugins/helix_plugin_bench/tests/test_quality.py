"""The suite's machinery: rows become recipes, results are kept, what cannot run says so."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from helix_core.cli.main import cli, main
from helix_core.errors import HelixError, InUse
from helix_core.lock import FolderLock
from helix_core.plugin_system import create
from helix_plugin_bench.quality import models, rows, store
from helix_plugin_bench.quality.report import markdown, picture
from helix_plugin_training.data.task import HELD_OUT
from helix_testing import BaseCommandTests, BaseGeneratorTests


class TestDigits(BaseGeneratorTests):
    generator = "digits"
    configs = ({}, {"held_out": 500})
    impossible = ({"held_out": 0}, {"held_out": 1797})


def test_held_out_digits_are_never_trained_on():
    made = create("generator", "digits")
    held_out = {made.sample(3, HELD_OUT + i)["inputs"].tobytes() for i in range(360)}
    trained = {made.sample(3, i)["inputs"].tobytes() for i in range(1797 - 360)}
    assert len(held_out) == 360
    assert not held_out & trained


def installed():
    return [row for row in rows.rows() if not models.missing(row.model)]


def test_every_row_has_a_name_of_its_own():
    names = [row.name for row in rows.rows()]
    assert len(names) == len(set(names))
    tasks = {"selective-copying", "induction-heads", "parity", "mqar", "digits", "listops", "stdlib"}
    assert {row.task for row in rows.rows()} == tasks
    assert installed()


def test_a_row_is_a_recipe_whose_model_can_be_built():
    from helix_plugin_lm.models import LanguageModel

    for row in installed():
        recipe = row.recipe(1e-3, 0)
        assert LanguageModel(recipe.model).param_specs(), row.name
        made = recipe.data.generator
        assert made is None or create("generator", made.name, **made.options).seq_len == row.seq_len, row.name


def test_language_models_have_like_numbers_of_parameters():
    from math import prod

    from helix_plugin_lm.models import LanguageModel

    for row in rows.rows(["stdlib"]):
        if not models.missing(row.model):
            specs = LanguageModel(row.recipe(1e-3, 0).model).param_specs()
            assert sum(prod(s.shape) for s in specs.values()) == pytest.approx(row.size, rel=0.07), row.name


def tiny(name, **changes):
    from dataclasses import replace

    (row,) = [row for row in rows.rows() if row.name == name]
    return replace(row, d_model=16, n_layers=1, steps=2, batch_size=2, rates=(1e-3,), **changes)


@pytest.fixture
def two_rows(monkeypatch):
    made = [
        tiny("induction-heads/mamba", lengths=(64, 300)),
        tiny("digits/s4d"),
    ]
    monkeypatch.setattr(rows, "SAMPLES", 4)
    monkeypatch.setattr(
        rows, "rows", lambda words=(): [r for r in made if not words or any(w in r.name for w in words)]
    )


def test_rows_are_run_once_kept_and_drawn(two_rows, tmp_path):
    file, table, plot = (tmp_path / name for name in ("out/quality.json", "quality.md", "quality.png"))
    assert main(["bench", "quality", "digits", "--json", str(file)]) == 0
    first = file.read_text()
    assert main(["bench", "quality", "--json", str(file), "--table", str(table), "--plot", str(plot)]) == 0
    results = {row["row"]: row for row in json.loads(file.read_text())["rows"]}
    assert json.loads(first)["rows"][0] == results["digits/s4d"]  # not run again
    found = results["induction-heads/mamba"]
    assert found["steps"] == 2
    assert found["seed"] == 0
    assert found["parameters"] == 256 + 16 + 3360 + 16  # the tied embedding, a norm, the mixer, a norm
    assert set(found["at_length"]) == {"64", "300"}
    assert "| s4d |" in table.read_text()
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_a_row_ends_when_enough_is_right(monkeypatch):
    from dataclasses import replace

    from helix_plugin_bench.quality import carry_out

    monkeypatch.setattr(rows, "SAMPLES", 4)
    monkeypatch.setattr(carry_out, "LOOK_EVERY", 3)
    row = replace(tiny("mqar/4-pairs-d32/mamba"), steps=8)
    assert carry_out.carry_out(replace(row, enough=1e-9 - 1), 0)["steps"] == 3
    assert carry_out.carry_out(replace(row, enough=1.1), 0)["steps"] == 8


def test_long_sequences_are_answered_in_chunks_with_the_same_result(two_rows, monkeypatch):
    from helix_plugin_bench.quality import carry_out
    from helix_plugin_training import Trainer, load_data

    row = rows.rows(["induction"])[0]
    recipe = row.recipe(1e-2, 0)
    trainer = Trainer(recipe, load_data(recipe))
    whole = carry_out.answers(trainer, row, 130, 0)
    monkeypatch.setattr(carry_out, "CHUNK", 48)
    assert carry_out.answers(trainer, row, 130, 0) == whole


def test_a_layer_that_is_not_installed_is_skipped_with_a_line(monkeypatch):
    from helix_plugin_bench.quality import models

    monkeypatch.setitem(models.MODELS, "s4d", models.Entry(lambda d, L: {"name": "no_such_layer"}))
    done = CliRunner().invoke(cli, ["bench", "quality", "digits/s4d"])
    assert done.exit_code == 0
    assert "digits/s4d: skipped: no layer no_such_layer is installed" in done.stderr


def test_wrong_requests_are_refused(tmp_path, capsys):
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    for arguments, said in (
        (["no-such-row"], "--list prints them all"),
        (["digits", "--json", str(wrong)], "holds no results"),
        (["digits", "--steps", "3", "--json", str(tmp_path / "x.json")], "go into no file"),
        (["digits", "--no-run"], "name their file with --json"),
    ):
        assert main(["bench", "quality", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_a_result_takes_the_place_of_its_own_row_and_seed_only(tmp_path):
    file = tmp_path / "quality.json"
    for seed, score in ((0, 0.5), (1, 0.6), (0, 0.7)):
        store.add(file, {"row": "a", "seed": seed, "accuracy": score})
    assert [(r["seed"], r["accuracy"]) for r in store.read(file)] == [(0, 0.7), (1, 0.6)]
    assert list(tmp_path.iterdir()) == [file]


FILLS = """
import sys
from pathlib import Path
from helix_plugin_bench.quality import store
for seed in range(20):
    store.add(Path(sys.argv[1]), {"row": sys.argv[2], "seed": seed, "accuracy": 0.5})
"""


def test_processes_that_fill_one_file_lose_nothing(tmp_path):
    file = tmp_path / "new" / "quality.json"
    writers = [subprocess.Popen([sys.executable, "-c", FILLS, str(file), name]) for name in "abc"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert [(r["row"], r["seed"]) for r in store.read(file)] == [(name, seed) for name in "abc" for seed in range(20)]
    assert list(file.parent.iterdir()) == [file]


def test_what_is_in_the_way_of_a_result_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with FolderLock(tmp_path, "it"), pytest.raises(InUse, match=r"results .*quality.json is being written by process"):
        store.add(tmp_path / "quality.json", {"row": "a", "seed": 0})
    (tmp_path / "file").write_text("")
    with pytest.raises(HelixError, match="cannot write the results to"):
        store.add(tmp_path / "file" / "quality.json", {"row": "a", "seed": 0})


def test_tables_and_plots_of_every_kind_of_row():
    shared = {"setting": "", "seed": 0, "parameters": 1, "steps": 1, "batch_size": 1, "rate": 1e-3, "d_model": 8}
    shared |= {"seconds": 60.0, "cpu_seconds": 30.0}
    results = [
        {**shared, "task": "mqar", "model": "mamba", "setting": "16-pairs-d64", "accuracy": 0.25},
        {**shared, "task": "mqar", "model": "mamba", "setting": "4-pairs-d64", "accuracy": 1.0},
        {**shared, "task": "stdlib", "model": "s4d", "bits_per_byte": 2.5, "gzip_bits_per_byte": 2.2},
        {**shared, "task": "digits", "model": "s4d", "accuracy": 0.975},
    ]
    text = markdown(results)
    assert text.index("4-pairs-d64") < text.index("16-pairs-d64")
    assert "| s4d | 2.500 | 2.200 |" in text
    assert "| s4d | 97.5% |" in text
    assert picture(results)[:4] == b"\x89PNG"
    assert markdown([]) == ""
    assert picture([])[:4] == b"\x89PNG"


@pytest.mark.slow
def test_s4d_learns_the_digits():
    from helix_plugin_bench.quality.carry_out import carry_out

    (row,) = rows.rows(["digits/s4d"])
    assert carry_out(row, 1)["accuracy"] >= 0.95


class TestBench(BaseCommandTests):
    command = "bench"
    arguments = ("quality", "--list")
    refused = (["quality", "no-such-row"], ["quality", "digits", "--no-run"], ["no-such-benchmark"])
