"""`helix generate` and `eval` on runs, of bytes and of a tokenizer's tokens."""

import json
import math
import shutil

import numpy as np
import pytest

from helix_core.cli.main import main
from helix_plugin_lm.models import LanguageModel
from helix_plugin_lm.runs import RunFolder
from helix_plugin_lm.runs.checkpoint import save_checkpoint
from helix_plugin_lm.runs.load import load_run
from helix_plugin_training.data import read_documents
from helix_plugin_training.recipes import dump_recipe, parse_recipe

RECIPE = """\
name = "tiny"
seed = 3

[model]
vocab_size = {vocab_size}
d_model = 16
n_layers = 1
mixer = {{ name = "mamba", d_state = 4 }}

[data]
source = "{folder}/data"
validation = 0.2
{more}

[training]
steps = 3
batch_size = 2
seq_len = 16

[sample]
max_bytes = 10
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generation")
    (folder / "data").mkdir()
    for i in range(6):
        (folder / "data" / f"{i}.txt").write_text(f"line {i}: the quick brown fox — über die Straße 😀\n" * 15)
    return folder


def trained(folder, name, vocab_size, more=""):
    recipe = folder / f"{name}.toml"
    recipe.write_text(RECIPE.format(folder=folder, vocab_size=vocab_size, more=more))
    assert main(["train", str(recipe), "--runs", str(folder / name)]) == 0
    (run,) = (folder / name).iterdir()
    return run


@pytest.fixture(scope="module")
def run(folder):
    """A run whose model has not learned anything: its texts are as good for these tests."""
    recipe = parse_recipe(RECIPE.format(folder=folder, vocab_size=256, more=""), "tiny")
    run = RunFolder.create(folder / "bytes", "tiny")
    run.write_recipe(dump_recipe(recipe))
    save_checkpoint(run.checkpoints, 0, LanguageModel(recipe.model).init(3), {}, {})
    return run.path


@pytest.fixture(scope="module")
def tokenizer_file(folder):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([(folder / "data" / "0.txt").read_text()], trainer)
    (folder / "made").mkdir()
    path = folder / "made" / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenized(folder, tokenizer_file):
    return trained(folder, "tokens", 300, f'tokenizer = "{tokenizer_file}"')


@pytest.fixture
def helix(capfdbinary):
    def call(*arguments, code=0):
        capfdbinary.readouterr()
        found = main([str(a) for a in arguments])
        out, err = capfdbinary.readouterr()
        assert found == code, err.decode()
        return out if code == 0 else err.decode()

    return call


def lines(out):
    return [json.loads(line) for line in out.decode().splitlines()]


def test_every_prompt_of_a_file_gets_its_own_text(run, helix, tmp_path):
    plain, rich = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    plain.write_text("the quick\n\nüber\n")
    rich.write_text('"the quick"\n{"prompt": "two\\nlines", "seed": 9}\n')
    found = lines(helix("generate", run, "--prompts", plain, "--max-tokens", 12, "--seed", 4))
    assert [(line["prompt"], line["seed"]) for line in found] == [("the quick", 4), ("", 5), ("über", 6)]
    found += lines(helix("generate", run, "--prompts", rich, "--max-tokens", 12, "--width", 1))
    assert [(line["prompt"], line["seed"]) for line in found[3:]] == [("the quick", 0), ("two\nlines", 9)]
    for line in found:
        options = ("--prompt", line["prompt"], "--seed", line["seed"], "--max-tokens", 12)
        (alone,) = lines(helix("generate", run, *options, "--json"))
        assert alone == {k: v for k, v in line.items() if k != "seed"}
        assert line["finish"] == "length"
        printed = helix("generate", run, *options)
        assert printed.decode("utf-8", "replace") == line["prompt"] + line["text"]


def test_a_stop_string_is_not_printed(run, helix):
    whole = helix("generate", run, "--prompt", "a", "--max-bytes", 60, "--top-k", 60, "--repetition-penalty", 1.5)
    text = whole[1:]
    # A stretch of it that is text and was not there before.
    at = next(i for i in range(5, 50) if text[i : i + 2].isascii() and b"\0" not in text[i : i + 2])
    stop = text[at : at + 2].decode()
    printed = helix(
        "generate", run, "--prompt", "a", "--max-bytes", 60, "--top-k", 60, "--repetition-penalty", 1.5, "--stop", stop
    )
    assert printed == b"a" + text[: text.index(stop.encode())]


def test_a_state_is_saved_and_gone_on_from(run, tokenized, helix, tmp_path):
    for each in (run, tokenized):
        state, again, at_once = tmp_path / "state", tmp_path / "again", tmp_path / "at-once"
        whole = helix("generate", each, "--prompt", "über", "--max-tokens", 12, "--save-state", at_once)
        first = helix("generate", each, "--prompt", "über", "--max-tokens", 5, "--save-state", state)
        rest = helix("generate", each, "--load-state", state, "--max-tokens", 7, "--save-state", again)
        assert first + rest == whole
        last, expected = (helix("generate", each, "--load-state", file, "--max-tokens", 3) for file in (again, at_once))
        assert last == expected != b""
    message = helix("generate", run, "--load-state", state, code=1)
    assert "of another model" in message
    state.write_bytes(state.read_bytes()[:-5])
    assert "not a whole safetensors file" in helix("generate", tokenized, "--load-state", state, code=1)


def test_beams_are_printed_best_first(run, helix):
    found = lines(helix("generate", run, "--prompt", "the", "--max-tokens", 6, "--num-beams", 4, "--best", 3))
    scores = [line["score"] for line in found]
    assert len(found) == 3
    assert scores == sorted(scores, reverse=True)
    assert found[0]["score"] == pytest.approx(found[0]["log_probability"] / 6)
    printed = helix("generate", run, "--prompt", "the", "--max-tokens", 6, "--num-beams", 4)
    assert printed.decode("utf-8", "replace") == "the" + found[0]["text"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--top-k", 0], "top_k"),
        (["--top-p", 0], "top_p"),
        (["--min-p", 2], "min_p"),
        (["--temperature", "nan"], "temperature"),
        (["--repetition-penalty", 0], "repetition_penalty"),
        (["--presence-penalty", "inf"], "presence_penalty"),
        (["--max-tokens", -1], "--max-tokens"),
        (["--max-bytes", "x"], "--max-bytes"),
        (["--seed", -1], "--seed"),
        (["--stop", ""], "stop string"),
        (["--stop-token", 256], "stop token 256"),
        (["--weights", "int3"], "int3"),
        (["--num-beams", 0], "num_beams"),
        (["--num-beams", 2, "--best", 3], "--best"),
        (["--num-beams", 2, "--top-k", 3], "--top-k"),
        (["--num-beams", 2, "--save-state", "s"], "--save-state"),
        (["--best", 2], "--best goes with --num-beams"),
        (["--length-penalty", 2], "--length-penalty goes with --num-beams"),
        (["--width", 2], "--width goes with --prompts"),
        (["--save-state", "/nowhere/state"], "no such folder"),
        (["--prompts", "/nowhere"], "cannot read prompts"),
        (["--prompts", "p", "--prompt", "a"], "--prompt"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_bad_options_say_which(run, helix, options, match):
    assert match in helix("generate", run, *options, code=2)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "no prompts"),
        ("{", ":1 is not valid JSON"),
        ('"a"\n3', ":2: give a text"),
        ('{"prompt": 1}', ":1: give a text"),
        ('{"prompt": "a", "seed": -1}', "seed"),
        ('{"prompt": "a", "sed": 1}', "unknown key 'sed'"),
    ],
)
def test_bad_prompts_say_where(run, helix, tmp_path, content, match):
    (tmp_path / "p.jsonl").write_text(content)
    assert match in helix("generate", run, "--prompts", tmp_path / "p.jsonl", code=2)


def test_a_run_of_tokens(folder, tokenized, tokenizer_file, helix):
    summary = json.loads((tokenized / "summary.json").read_text())
    assert summary["train_tokens"] == 3 * 2 * 16
    assert (tokenized / "tokenizer.json").read_bytes() == tokenizer_file.read_bytes()
    (line, *_) = lines(helix("generate", tokenized, "--prompt", "the", "--max-tokens", 8, "--json"))
    assert line["tokens"] <= 8
    found = json.loads(helix("eval", tokenized, "--data", folder / "data", "--json"))
    run = load_run(tokenized)
    nats = tokens = 0
    for document in read_documents(str(folder / "data")):
        ids = run.tokenizer.encode(document.data.tobytes())
        with run.backend.inference():
            fed = run.backend.asarray(np.concatenate([[run.tokenizer.start], ids[:-1]])[None])
            logits, _ = run.model.apply(run.F, run.params, fed)
            nats += float(run.backend.to_numpy(run.F.cross_entropy(logits, run.backend.asarray(ids[None]))).sum())
        tokens += len(ids)
    assert found["tokens"] == tokens
    assert found["bytes"] == sum(p.stat().st_size for p in (folder / "data").iterdir())
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"], rel=1e-5)
    assert found["bits_per_token"] == pytest.approx(nats / math.log(2) / tokens, rel=1e-5)
    assert "bytes" in helix("eval", tokenized, "--data", folder / "data", "--memory", "topological", code=2)


def test_a_run_of_tokens_goes_on_with_its_own_tokenizer(tokenized, tokenizer_file, helix, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tokenized, copy)
    moved = tokenizer_file.with_name("gone.json")
    tokenizer_file.rename(moved)
    try:
        recipe = (copy / "recipe.toml").read_text().replace("steps = 3", "steps = 4")
        (copy / "recipe.toml").write_text(recipe)
        helix("train", "--resume", copy)
    finally:
        moved.rename(tokenizer_file)
    assert json.loads((copy / "summary.json").read_text())["train_tokens"] == 4 * 2 * 16
    (copy / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in helix("generate", copy, code=1)


def test_a_model_with_too_few_tokens_is_refused(folder, tokenizer_file, helix):
    recipe = folder / "few.toml"
    more = f'tokenizer = "{tokenizer_file}"'
    recipe.write_text(RECIPE.format(folder=folder, vocab_size=256, more=more))
    message = helix("train", recipe, "--runs", folder / "few", code=2)
    assert "set model.vocab_size = " in message
    assert not (folder / "few").exists()
    recipe.write_text(RECIPE.format(folder=folder, vocab_size=300, more='tokenizer = "/nowhere.json"'))
    assert "cannot read" in helix("train", recipe, code=1)
