"""Runs that are resumed from older checkpoints, torn, poisoned, removed, shared or made by strangers."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from helix_core.errors import (
    CheckpointError,
    EvaluationError,
    HelixError,
    Interrupted,
    InUse,
    TrainingError,
    UsageError,
)
from helix_core.events import subscribe
from helix_plugin_lm.runs import RunFolder, load_run
from helix_plugin_lm.runs.checkpoint import load_checkpoint, open_checkpoint, save_checkpoint
from helix_plugin_lm.storage.tensor_file import write_tensors
from helix_plugin_training.recipes.load import load_recipe, parse_recipe
from helix_plugin_training.run import resume, train

RECIPE = """
name = "tiny"
seed = 3
model = {{ d_model = 16, n_layers = 1, mixer = {{ name = "mamba", d_state = 4 }} }}
data = {{ source = "{data}", validation = 0.2 }}
training = {{ steps = 12, batch_size = 2, seq_len = 32, checkpoint_every = 3, keep = 10, eval_every = 4 }}
optimizer = {{ name = "adamw", lr = 3e-3 }}
sample = {{ max_bytes = 3 }}
"""


class Killed(BaseException):
    """As SIGKILL: nothing in the run catches it."""


def after(event, step, do):
    """An observer that acts once at an event of a step."""

    def observe(found):
        if found.name == event and found.data.get("step", step) == step:
            do()

    return subscribe(observe)


def kill():
    raise Killed


def stop():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    data = folder / "data"
    data.mkdir()
    for i in range(6):
        (data / f"{i}.txt").write_text(f"line {i}: the quick brown fox jumps over the lazy dog\n" * 8)
    recipe = parse_recipe(RECIPE.format(data=data), "test")
    return recipe, train(recipe, runs=folder / "runs").path


@pytest.fixture
def recipe(made):
    return made[0]


@pytest.fixture
def run(made, tmp_path):
    """A copy of a whole run of 12 steps with checkpoints 3, 6, 9 and 12."""
    shutil.copytree(made[1], tmp_path / "run")
    return RunFolder(tmp_path / "run")


def lines(run, key="loss"):
    return [line["step"] for line in map(json.loads, run.metrics_file.read_text().splitlines()) if key in line]


def curve(run):
    whole = map(json.loads, run.metrics_file.read_text().splitlines())
    return [(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in whole if "loss" in line]


def steps(run):
    return [int(path.name[5:]) for path in sorted(run.checkpoints.glob("step-*"))]


def with_training(recipe, **changes):
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


# Resuming an older checkpoint.


def test_an_older_checkpoint_becomes_the_run_and_the_rest_a_run_of_its_own(made, run, capsys):
    whole = curve(run)
    with after("training_step", 8, stop), pytest.raises(Interrupted) as stopped:
        resume(run, with_training(load_recipe(run.recipe_file), keep=2), checkpoint=run.checkpoints / "step-00000006")
    assert steps(run) == [6, 8], "the new work is what is kept"
    assert lines(run) == list(range(1, 9))
    assert not run.summary_file.exists()
    assert stopped.value.hint == f"helix train --resume {run.path}"
    other = RunFolder(run.path / "set-aside-1")
    assert str(other.path) in capsys.readouterr().err
    assert steps(other) == [9, 12]
    assert other.finished_at() == 12
    assert (other.path / json.loads(other.summary_file.read_text())["sample"]).is_file()
    assert curve(other) == whole
    resume(run)
    assert curve(run) == whole
    # The other curve goes on too.
    resume(other, with_training(load_recipe(other.recipe_file), steps=14))
    assert lines(other) == list(range(1, 15))
    assert load_run(other.path / "checkpoints" / "step-00000009").step == 9


def test_a_kill_while_checkpoints_are_set_aside_loses_none(run, monkeypatch):
    whole, rename = curve(run), type(run.path).rename
    moved = []

    def once(path, target):
        if path.parent == run.checkpoints and path.name.startswith("step-"):
            moved.append(path.name)
            if len(moved) == 2:
                raise Killed
        return rename(path, target)

    monkeypatch.setattr(type(run.path), "rename", once)
    with pytest.raises(Killed):
        resume(run, checkpoint=run.checkpoints / "step-00000003")
    monkeypatch.undo()
    aside = RunFolder(run.path / "set-aside-1")
    assert sorted(steps(run) + steps(aside)) == [3, 6, 9, 12]
    resume(run, checkpoint=run.checkpoints / "step-00000003")
    assert curve(run) == whole
    assert sorted(steps(aside) + steps(RunFolder(run.path / "set-aside-2"))) == [6, 9, 12]


def test_a_damaged_newest_checkpoint_is_refused_and_then_set_aside(run):
    newest = run.checkpoints / "step-00000012"
    (newest / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="damaged") as refused:
        resume(run, with_training(load_recipe(run.recipe_file), steps=14))
    assert str(run.checkpoints / "step-00000009") in refused.value.hint
    assert steps(run) == [3, 6, 9, 12]
    assert lines(run) == list(range(1, 13))
    resume(run, with_training(load_recipe(run.recipe_file), steps=14), checkpoint=run.checkpoints / "step-00000009")
    assert lines(run) == list(range(1, 15))
    assert steps(run)[-1] == 14
    assert steps(RunFolder(run.path / "set-aside-1")) == [12]
    load_run(run.path)


def test_a_checkpoint_of_another_run_is_refused(made, run):
    with pytest.raises(UsageError, match="is not one of the checkpoints of"):
        resume(run, checkpoint=made[1] / "checkpoints" / "step-00000006")


@pytest.mark.parametrize("place", ["run/checkpoints/step-00000006", "checkpoints/step-00000006", "step-00000006", "."])
def test_a_checkpoint_is_found_however_it_is_named(run, monkeypatch, place):
    folder = {"run": run.path.parent, "checkpoints": run.path, "step-00000006": run.checkpoints}
    monkeypatch.chdir(folder.get(place.split("/")[0], run.checkpoints / "step-00000006"))
    found, checkpoint = RunFolder.find(place)
    assert found.path.resolve() == run.path.resolve()
    assert checkpoint.resolve() == (run.checkpoints / "step-00000006").resolve()


# Two processes.


def test_the_second_process_is_refused_and_changes_nothing(run):
    code = """
import sys
from helix_plugin_lm.runs.run_folder import RunFolder
with RunFolder(__import__("pathlib").Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""
    first = subprocess.Popen(
        [sys.executable, "-c", code, run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout.readline() == "held\n"
        before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        with pytest.raises(InUse, match=rf"process {first.pid} on "):
            resume(run, with_training(load_recipe(run.recipe_file), steps=14))
        assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
        assert load_run(run.path).step == 12, "reading is free"
    finally:
        first.kill()
        first.communicate()
    assert (run.path / ".lock").exists()
    resume(run, with_training(load_recipe(run.recipe_file), steps=13))
    assert lines(run) == list(range(1, 14))
    assert not (run.path / ".lock").exists()


def test_a_run_that_trains_is_locked(recipe, tmp_path):
    refused = []

    def second():
        (path,) = tmp_path.iterdir()
        try:
            resume(RunFolder(path))
        except InUse as error:
            refused.append(str(error))

    with after("checkpoint", 3, second):
        train(with_training(recipe, steps=3), runs=tmp_path)
    assert len(refused) == 1
    assert f"process {os.getpid()} " in refused[0]


# Metrics.


@pytest.mark.parametrize("event", ["run_finished", "before the summary"])
def test_a_run_killed_at_its_end_has_each_line_once(recipe, tmp_path, monkeypatch, event):
    if event == "before the summary":
        monkeypatch.setattr(RunFolder, "write_summary", lambda run, summary: kill())
    with after(event, None, kill), pytest.raises(Killed):
        train(recipe, runs=tmp_path)
    monkeypatch.undo()
    (path,) = tmp_path.iterdir()
    run = RunFolder(path)
    if event == "run_finished":
        with pytest.raises(UsageError, match="complete at step 12"):
            resume(run)
    else:
        resume(run)
    assert lines(run) == list(range(1, 13))
    assert lines(run, "val_bits_per_byte") == [4, 8, 12]
    resume(run, with_training(recipe, steps=13))
    assert lines(run, "val_bits_per_byte") == [4, 8, 12, 13]


def test_an_extended_run_that_is_killed_at_its_end_is_not_complete(run, monkeypatch):
    monkeypatch.setattr(RunFolder, "write_summary", lambda run, summary: kill())
    with pytest.raises(Killed):
        resume(run, with_training(load_recipe(run.recipe_file), steps=14))
    monkeypatch.undo()
    resume(run)
    assert run.finished_at() == 14
    assert lines(run, "val_bits_per_byte") == [4, 8, 12, 14]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[: len(text) // 3] + text[len(text) // 2 :],
        lambda text: text + text.splitlines(keepends=True)[3],
        lambda text: text + text.splitlines(keepends=True)[4],
        lambda text: b"",
        lambda text: text.replace(b"\n", b"\xff\n", 3),
        lambda text: text.replace(b'{"step": 5', b'["step", 5'),
    ],
    ids=["cut off", "cut in the middle", "doubled", "doubled evaluation", "empty", "no text", "no object"],
)
def test_damaged_metrics_are_said_and_what_is_whole_is_kept(run, damage):
    whole = curve(run)
    run.metrics_file.write_bytes(damage(run.metrics_file.read_bytes()))
    kept = [line for line in run.metrics() if "loss" in line]
    with pytest.warns(RuntimeWarning, match="does not have every step up to 12 once: it is damaged from step"):
        resume(run, with_training(load_recipe(run.recipe_file), steps=13))
    assert set(curve(run)[: len(kept)]) <= set(whole)
    assert curve(run)[-1][0] == 13
    assert len(curve(run)) == len(kept) + 1


def test_events_that_were_cut_off_go_on_in_whole_lines(run):
    with run.events_file.open("a") as file:
        file.write('{"event": "checkpo')
    resume(run, with_training(load_recipe(run.recipe_file), steps=13))
    assert [json.loads(line) for line in run.events_file.read_text().splitlines()][-1]["event"] == "run_finished"


# Removed, or not begun.


@pytest.mark.parametrize("again", [False, True])
def test_a_run_folder_that_was_removed_is_not_made_again(recipe, tmp_path, again):
    def gone():
        (path,) = tmp_path.iterdir()
        shutil.rmtree(path)
        if again:
            path.mkdir()

    with after("training_step", 4, gone), pytest.raises(CheckpointError, match="removed or replaced"):
        train(recipe, runs=tmp_path)
    assert [list(path.iterdir()) for path in tmp_path.iterdir()] == ([[]] if again else [])


def test_a_checkpoint_is_not_written_where_there_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="is gone"):
        save_checkpoint(tmp_path / "run" / "checkpoints", 1, {}, {}, {})
    assert not list(tmp_path.iterdir())


def test_a_run_killed_before_its_first_checkpoint_starts_anew(made, recipe, tmp_path, capsys):
    with after("training_step", 2, kill), pytest.raises(Killed):
        train(recipe, runs=tmp_path)
    (path,) = tmp_path.iterdir()
    run = RunFolder.open(path)
    assert not run.checkpoints.exists()
    resume(run)
    assert "starts anew" in capsys.readouterr().err
    assert curve(run) == curve(RunFolder(made[1]))


def test_a_run_that_starts_from_another_is_killed_before_its_first_checkpoint(made, recipe, tmp_path):
    recipe = with_training(recipe, init=str(made[1]))
    train(recipe, runs=tmp_path / "whole")
    with after("run_started", 0, kill), pytest.raises(Killed):
        train(recipe, runs=tmp_path / "killed")
    (whole,), (killed,) = (tmp_path / "whole").iterdir(), (tmp_path / "killed").iterdir()
    resume(RunFolder(killed))
    assert curve(RunFolder(killed)) == curve(RunFolder(whole))


def test_a_finished_run_whose_checkpoints_were_removed_is_not_begun_anew(run):
    shutil.rmtree(run.checkpoints)
    with pytest.raises(CheckpointError, match="no checkpoint any more"):
        resume(run)
    assert lines(run) == list(range(1, 13))


# Poison.


def poison(path, value, name="model.safetensors", step=12):
    """A checkpoint of numbers that are not finite, whole by its hashes, as earlier versions wrote it."""
    stored = load_checkpoint(path)
    tensors = {"model.safetensors": stored.params, "optimizer.safetensors": stored.moments}
    first = sorted(tensors[name])[0]
    tensors[name][first].reshape(-1)[-1] = value
    manifest = json.loads((path / "manifest.json").read_text())
    for file in tensors:
        size, digest = write_tensors(path / file, tensors[file])
        manifest["files"][file] = {"bytes": size, "blake2b": digest}
    del manifest["blake2b"]
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": 1}))
    return first


def test_infinite_parameters_are_not_saved(recipe, tmp_path):
    bad = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"lr": 1e38})})
    bad = with_training(bad, checkpoint_every=1, eval_every=None)
    with pytest.raises((TrainingError, EvaluationError)) as refused:
        train(bad, runs=tmp_path)
    assert "lower optimizer.lr" in str(refused.value)
    (path,) = tmp_path.iterdir()
    assert not list(path.rglob("step-*"))
    for line in (path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_written(tmp_path, value):
    good, bad = np.ones(3, np.float32), np.float32([0, value])
    for params, moments in (({"a": good, "b": bad}, {}), ({"a": good}, {"m/a": bad})):
        with pytest.raises(CheckpointError, match="holds NaN or infinity"):
            save_checkpoint(tmp_path, 1, params, moments, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_every_reader(run, recipe, tmp_path, value):
    name = poison(run.checkpoints / "step-00000012", value)
    for use in (
        lambda: load_run(run.path),
        lambda: resume(run, with_training(load_recipe(run.recipe_file), steps=13)),
        lambda: train(with_training(recipe, init=str(run.path)), runs=tmp_path / "other"),
    ):
        with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
            use()
    load_run(run.checkpoints / "step-00000009")


def test_moments_that_are_not_finite_are_refused(run):
    name = poison(run.checkpoints / "step-00000012", np.inf, "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        resume(run, with_training(load_recipe(run.recipe_file), steps=13))
    load_run(run.path)


def test_a_loss_that_is_not_finite_is_no_evaluation(run, recipe):
    from helix_plugin_training.data import load_corpus
    from helix_plugin_training.evaluation.text import evaluate

    loaded = load_run(run.path)
    huge = {name: p * 1e30 for name, p in loaded.params.items()}
    documents = load_corpus(recipe.data.source, 0.2).validation
    with pytest.raises(EvaluationError, match="not finite"):
        evaluate(loaded.model, loaded.backend, loaded.F, huge, documents)


# Manifests.


def test_every_flipped_bit_of_a_manifest_is_found(run):
    path = run.checkpoints / "step-00000012"
    manifest = (path / "manifest.json").read_bytes()
    for place in range(len(manifest)):
        flipped = bytearray(manifest)
        flipped[place] ^= 1 << (place % 8)
        (path / "manifest.json").write_bytes(flipped)
        with pytest.raises(CheckpointError):
            open_checkpoint(path)
    (path / "manifest.json").write_bytes(manifest)
    open_checkpoint(path)


@pytest.mark.parametrize("keep_hash", [False, True])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", 55),
        ("step", -12),
        ("step", 1e400),
        ("step", float("nan")),
        ("step", 12.0),
        ("step", "12"),
        ("step", True),
        ("step", None),
        ("version", 99),
        ("version", 0),
        ("version", "1"),
        ("version", True),
        ("version", None),
        ("files", {}),
        ("files", []),
        ("files", {"model.safetensors": 3, "optimizer.safetensors": 3}),
        ("train_seconds", "soon"),
        ("train_seconds", -1.0),
        ("train_seconds", float("inf")),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(run, key, value, keep_hash):
    """As a stranger writes it: with a hash that fits, or as version 1, which had none."""

    def digest(manifest):
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    path = run.checkpoints / "step-00000012"
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest.pop("blake2b") == digest(manifest)
    manifest = {**manifest, "version": 2 if keep_hash else 1, key: value}
    if keep_hash:
        manifest["blake2b"] = digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        resume(run, with_training(load_recipe(run.recipe_file), steps=60))
    assert steps(run) == [3, 6, 9, 12]
    assert lines(run) == list(range(1, 13))


def test_a_renamed_checkpoint_is_refused(run):
    (run.checkpoints / "step-00000012").rename(run.checkpoints / "step-00000055")
    with pytest.raises(CheckpointError, match=r"says step 12.*says step 55"):
        load_run(run.path)


def test_checkpoints_of_version_1_are_read(run):
    path = run.checkpoints / "step-00000012"
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["blake2b"]
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": 1}, indent=1))
    resume(run, with_training(load_recipe(run.recipe_file), steps=13))
    assert lines(run) == list(range(1, 14))


# A stranger's folder.

PLACES = [
    "samples",
    "checkpoints",
    "events.jsonl",
    "metrics.jsonl",
    "summary.json",
    "loss.png",
    "tokenizer.json",
    "huggingface/config.json",
    "checkpoints/step-00000012/model.safetensors",
    "checkpoints/step-00000012/manifest.json",
    "anything/deep/below",
    ".lock",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["link", "folder link", "pipe"])
def test_nothing_is_followed_out_of_a_run_folder(run, recipe, tmp_path, place, kind):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("mine")
    odd = run.path / place
    shutil.rmtree(odd, ignore_errors=True)
    odd.unlink(missing_ok=True)
    odd.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(secret / "key" if kind == "link" else secret)
    word = "pipe" if kind == "pipe" else "symbolic link"
    with pytest.raises(HelixError, match=f"is a {word}"):
        RunFolder.open(run.path)
    with pytest.raises(HelixError, match=f"is a {word}"):
        resume(run, with_training(recipe, steps=13))
    for use in (
        lambda: load_run(run.path),
        lambda: train(with_training(recipe, init=str(run.path)), runs=tmp_path / "other"),
    ):
        with pytest.raises(HelixError, match=f"is a {word}"):
            use()
    with pytest.raises(HelixError):
        load_run(run.checkpoints / "step-00000009")
    assert [path.name for path in secret.iterdir()] == ["key"]
    assert (secret / "key").read_text() == "mine"
    assert not (tmp_path / "other").exists()


def test_files_that_are_shared_by_hard_links_are_not_written_through(run, tmp_path):
    for file in (run.events_file, run.metrics_file, run.summary_file, run.recipe_file):
        os.link(file, tmp_path / file.name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    resume(run, with_training(load_recipe(run.recipe_file), steps=13))
    assert {path: path.read_bytes() for path in before} == before


def test_a_link_to_a_run_folder_is_a_run_folder(run, tmp_path):
    (tmp_path / "latest").symlink_to(run.path)
    assert load_run(tmp_path / "latest").step == 12
    assert load_run(tmp_path / "latest" / "checkpoints" / "step-00000009").step == 9


# A full disk.


def test_a_disk_that_is_full_leaves_whole_lines(run, tmp_path):
    resource = pytest.importorskip("resource")
    code = """
import resource, signal, sys
from pathlib import Path
from helix_plugin_lm.runs.run_folder import JsonLines
from helix_core.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
lines = JsonLines(Path(sys.argv[1]))
try:
    for step in range(100):
        lines.write(step=step, loss=float("nan"))
except CheckpointError as error:
    print(error)
lines.close()
"""
    assert resource
    file = tmp_path / "lines.jsonl"
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, timeout=120)
    assert "cannot write" in done.stdout, done.stderr
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert 2 < len(found) < 100
    assert all(line["loss"] is None for line in found)
