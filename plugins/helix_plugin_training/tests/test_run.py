"""Whole runs through the command line, as users start, stop, kill and resume them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helix_plugin_lm.runs import load_run
from helix_plugin_training import evaluate, gzip_bits_per_byte
from helix_plugin_training.data import load_corpus
from helix_plugin_training.run import BETWEEN_SAMPLES

RECIPE = """\
name = "tiny"
seed = 3

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
seq_len = 32
accumulation = 2
checkpoint_every = 5

[optimizer]
name = "adamw"
lr = 3e-3

[lr_schedule]
name = "wsd"
warmup = 5

[sample]
max_bytes = 20
"""


def helix(*args, check=True, **options):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "helix_core.cli.main", *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, **options)
    if check and result.returncode:
        raise AssertionError(f"helix {args} exited with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


@pytest.fixture
def recipe(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for i in range(8):
        (data / f"{i}.txt").write_text(f"line {i}: the quick brown fox jumps over the lazy dog\n" * 20)

    def write(steps=20):
        path = tmp_path / "tiny.toml"
        path.write_text(RECIPE.format(data=data, steps=steps))
        return path

    return write


def only_run(folder):
    (run,) = Path(folder).iterdir()
    return run


def curve(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: (line["loss"], line["grad_norm"], line["lr"]) for line in lines if "loss" in line}


def test_a_run_leaves_everything_behind(recipe, tmp_path):
    result = helix("train", recipe(), "--runs", tmp_path / "runs")
    run = only_run(tmp_path / "runs")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 20
    assert summary["backend"] == "cpu"
    assert summary["train_bytes"] == 20 * 2 * 32 * 2
    held_out, loaded = load_corpus(str(tmp_path / "data"), 0.2).validation, load_run(run, backend="cpu")
    again = evaluate(loaded.model, loaded.backend, loaded.F, loaded.params, held_out)
    assert summary["val_bits_per_byte"] == pytest.approx(again.bits_per_byte)
    assert again.bits_per_byte < 8, "it learned something"
    assert summary["gzip_bits_per_byte"] == gzip_bits_per_byte(held_out)
    assert summary["train_bytes_per_second"] == pytest.approx(summary["train_bytes"] / summary["train_seconds"])
    assert summary["parameters"] == loaded.model.parameters == sum(p.numel() for p in loaded.params.values())
    assert summary["kernels"]["selective_scan"] == "cpu/selective_scan"
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in sorted((run / "checkpoints").iterdir())] == ["step-00000015", "step-00000020"]
    texts = (run / summary["sample"]).read_bytes().split(BETWEEN_SAMPLES)
    assert len(set(texts)) == 3
    assert all(text.startswith(b"def ") for text in texts)
    assert list(curve(run)) == list(range(1, 21))
    events = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[0] == "run_started"
    assert events[-1] == "run_finished"
    assert events.count("checkpoint") == 4
    assert f"held out: {summary['val_bits_per_byte']:.3f} bits/byte" in result.stdout
    assert "gzip -9" in result.stdout


def test_equal_recipes_give_equal_curves_and_other_seeds_others(recipe, tmp_path):
    curves = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        helix("train", recipe(8), "--runs", tmp_path / name, "--set", f"seed={seed}")
        curves.append(curve(only_run(tmp_path / name)))
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def start(recipe_file, runs):
    command = [sys.executable, "-m", "helix_core.cli.main", "train", str(recipe_file), "--runs", str(runs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines_written(runs):
    files = list(Path(runs).glob("*/metrics.jsonl"))
    return len(files[0].read_text().splitlines()) if files else 0


def test_a_killed_run_resumes_bit_by_bit(recipe, tmp_path):
    steps = 60
    helix("train", recipe(steps), "--runs", tmp_path / "whole")
    process = start(recipe(steps), tmp_path / "killed")
    wait_for(lambda: lines_written(tmp_path / "killed") >= 17, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run = only_run(tmp_path / "killed")
    assert not (run / "summary.json").exists()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')  # as a kill in the middle of a write leaves it
    result = helix("train", "--resume", run)
    assert curve(run) == curve(only_run(tmp_path / "whole"))
    first_lines = (run / "events.jsonl").read_text().splitlines()
    resumed_from = [json.loads(line)["step"] for line in first_lines if "run_started" in line][1]
    assert 15 <= resumed_from < steps
    assert "held out" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_leaves_and_resumes(recipe, tmp_path, number):
    steps = 400
    process = start(recipe(steps), tmp_path / "runs")
    wait_for(lambda: lines_written(tmp_path / "runs") >= 3, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err
    run = only_run(tmp_path / "runs")
    stopped_at = max(curve(run))
    assert f"after step {stopped_at}" in err
    assert f"--resume {run}" in err
    assert (run / "checkpoints" / f"step-{stopped_at:08d}").is_dir()
    helix("train", "--resume", run, "--set", f"training.steps={stopped_at + 3}")
    assert max(curve(run)) == stopped_at + 3


def test_a_complete_run_is_not_trained_again_unless_extended(recipe, tmp_path):
    helix("train", recipe(6), "--runs", tmp_path / "runs")
    run = only_run(tmp_path / "runs")
    again = helix("train", "--resume", run, check=False)
    assert again.returncode == 2
    assert "complete at step 6" in again.stderr
    helix("train", "--resume", run, "--set", "training.steps=9")
    assert max(curve(run)) == 9
    other = helix("train", "--resume", run, "--set", "model.d_model=32", check=False)
    assert other.returncode == 2
    assert "keeps its recipe" in other.stderr


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(recipe, tmp_path):
    diverging = ["--set", "optimizer.name=sgd", "--set", "optimizer.lr=1e30", "--set", "training.clip=1e30"]
    undo = ["--set", "training.checkpoint_every=1", "--set", "lr_schedule.warmup=0"]
    result = helix("train", recipe(50), "--runs", tmp_path / "runs", *diverging, *undo, check=False)
    assert result.returncode == 1
    assert "at step" in result.stderr
    assert "lower optimizer.lr" in result.stderr
    assert "Traceback" not in result.stderr
    run = only_run(tmp_path / "runs")
    assert list((run / "checkpoints").glob("step-*"))


def test_changed_data_is_noticed_on_resume(recipe, tmp_path):
    helix("train", recipe(6), "--runs", tmp_path / "runs")
    (tmp_path / "data" / "0.txt").write_text("something else entirely")
    result = helix("train", "--resume", only_run(tmp_path / "runs"), "--set", "training.steps=9", check=False)
    assert result.returncode == 1
    assert "data source has changed" in result.stderr


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("data.source=no/such/place", 1, "no/such/place"),
        ("training.seq_len=100000", 1, "less than one row"),
        ("model.mixer.name=mambo", 2, "mamba"),
        ("model.mixer.d_stat=4", 2, "d_state"),
        ("optimizer.momentum=0.9", 2, "momentum"),
        ("backend.name=cpuu", 2, "cpu"),
        ("backend.name=reference", 1, "grad"),
        ("training.batch_sise=4", 2, "did you mean 'batch_size'"),
    ],
)
def test_what_is_wrong_is_said_in_words(recipe, tmp_path, override, code, words):
    result = helix("train", recipe(), "--runs", tmp_path / "runs", "--set", override, check=False)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_damaged_checkpoint_is_refused_and_an_older_one_works(recipe, tmp_path):
    helix("train", recipe(10), "--runs", tmp_path / "runs")
    run = only_run(tmp_path / "runs")
    older, newest = sorted((run / "checkpoints").iterdir())
    file = newest / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    result = helix("generate", run, "--prompt", "x", check=False)
    assert result.returncode == 1
    assert "damaged" in result.stderr
    assert helix("generate", older, "--prompt", "x", "--max-bytes", "3").stdout.startswith("x")
    helix("train", "--resume", older, "--set", "training.steps=12")
    assert max(curve(run)) == 12


def test_generate_streams_the_same_bytes_for_the_same_seed(recipe, tmp_path):
    helix("train", recipe(6), "--runs", tmp_path / "runs")
    run = only_run(tmp_path / "runs")

    def text(*options):
        command = [
            sys.executable,
            "-m",
            "helix_core.cli.main",
            "generate",
            str(run),
            "--max-bytes",
            "40",
            *options,
        ]
        return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout

    first = text("--prompt", "the ", "--seed", "1")
    assert first.startswith(b"the ")
    assert len(first) == 44
    assert first == text("--prompt", "the ", "--seed", "1")
    assert first != text("--prompt", "the ", "--seed", "2")
    greedy = text("--prompt", "the ", "--temperature", "0")
    assert greedy == text("--prompt", "the ", "--top-k", "1", "--seed", "5")
    assert greedy == text("--prompt", "the ", "--temperature", "0", "--backend", "reference")
    assert helix("generate", run, "--top-k", "0", check=False).returncode == 2
    assert helix("generate", tmp_path, check=False).returncode == 2


def test_eval_agrees_across_backends_and_with_the_summary(recipe, tmp_path):
    helix("train", recipe(6), "--runs", tmp_path / "runs")
    run = only_run(tmp_path / "runs")
    found = {
        name: json.loads(helix("eval", run, "--data", tmp_path / "data", "--json", "--backend", name).stdout)
        for name in ("cpu", "reference")
    }
    assert found["cpu"]["documents"] == 8
    assert found["cpu"]["bits_per_byte"] == pytest.approx(found["reference"]["bits_per_byte"], rel=1e-4)
    held_out = json.loads((run / "summary.json").read_text())["val_bits_per_byte"]
    assert found["cpu"]["bits_per_byte"] == pytest.approx(held_out, abs=1.0)
    assert helix("eval", run, "--data", tmp_path / "absent", check=False).returncode == 1


def test_a_disk_that_fills_up_during_a_run_keeps_the_last_checkpoint(recipe, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        result = helix("train", recipe(200), "--runs", disk, "--set", "training.keep=100", check=False)
        assert result.returncode == 1
        assert "No space left" in result.stderr
        assert "Traceback" not in result.stderr
        saved = sorted((only_run(disk) / "checkpoints").iterdir())
        assert saved
        assert all(path.name.startswith("step-") for path in saved)
        assert helix("generate", saved[-1], "--max-bytes", "2").returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_starts_from_the_parameters_of_another(recipe, tmp_path):
    """Its tokenizer comes along; its optimizer and steps do not."""
    from safetensors.numpy import load_file

    tokenizers = pytest.importorskip("tokenizers")
    helix("train", recipe(steps=3), "--runs", tmp_path / "first")
    (first,) = (tmp_path / "first").iterdir()
    # All bytes but NUL, whose place the separator takes: the recipe's model has 256 tokens.
    letters = ["<|endoftext|>", *sorted(set(tokenizers.pre_tokenizers.ByteLevel.alphabet()) - {"Ā"})]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.add_special_tokens(letters[:1])
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(first / "tokenizer.json"))
    settings = ["--set", f"training.init={first}", "--set", "training.steps=1", "--set", "optimizer.lr=1e-12"]
    helix("train", first / "recipe.toml", *settings, "--runs", tmp_path / "second")
    (second,) = (tmp_path / "second").iterdir()
    assert (second / "tokenizer.json").is_file()
    before = load_file(first / "checkpoints" / "step-00000003" / "model.safetensors")
    after = load_file(second / "checkpoints" / "step-00000001" / "model.safetensors")
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-9)
    other = helix("train", first / "recipe.toml", *settings, "--set", "model.d_model=8", check=False)
    assert other.returncode == 1
    assert "does not fit the model" in other.stderr
