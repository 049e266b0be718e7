"""The tokens that end texts, and the files that name them, come along: in, through fine-tuning, and out again."""

import json

import pytest
from hf_models import random_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from helix_plugin_lm.runs.load import load_run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FILES = {
    "tokenizer_config.json": '{"model_max_length": 99}',
    "special_tokens_map.json": "{}",
    "added_tokens.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "additional_chat_templates/tool.jinja": "{{ tools }}",
    "vocab.json": "{}",
    "merges.txt": "#version: 0.2\n",
}


@pytest.fixture
def checkpoint(saved):
    """A saved Mamba with a tokenizer whose special tokens have no usual name, and with all files that may lie there."""
    words = {f"▁w{i}": i for i in range(59)} | {"<|begin|>": 59, "<|done|>": 60}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="▁w0"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(["<|begin|>", "<|done|>"])
    tokenizer.save(str(saved / "tokenizer.json"))
    (saved / "additional_chat_templates").mkdir()
    for name, content in FILES.items():
        (saved / name).write_text(content)
    (saved / "generation_config.json").unlink()
    return saved


@pytest.mark.parametrize("value", [60, [60], [3, 60]])
@pytest.mark.parametrize("file", ["generation_config.json", "config.json", "tokenizer_config.json"])
def test_numbers_of_end_tokens_stop_an_imported_run(file, value, checkpoint, helix, tmp_path):
    path = checkpoint / file
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | {"eos_token_id": value}))
    ended = stopped_by(checkpoint, helix, tmp_path)
    assert ended == ({60} if value in (60, [60]) else {3, 60})


@pytest.mark.parametrize("name", ["<|done|>", {"content": "<|done|>", "lstrip": False}])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_names_of_end_tokens_stop_an_imported_run(file, name, checkpoint, helix, tmp_path):
    (checkpoint / file).write_text(json.dumps({"eos_token": name}))
    assert stopped_by(checkpoint, helix, tmp_path) == {60}


def stopped_by(folder, helix, tmp_path):
    """The end tokens of an imported run, after a check that the first of its greedy tokens to be one ends the text."""
    assert helix("import", folder, "--out", tmp_path / "run")[0] == 0
    ends = load_run(tmp_path / "run", backend="cpu").tokenizer.ends
    asked = ("generate", tmp_path / "run", "--prompt", "w1 w2", "--temperature", "2", "--max-tokens", "2000", "--json")
    done = json.loads(helix(*asked)[1])
    assert done["finish"] == "stop token"
    assert done["text"].startswith(" w")  # as the continuation of the prompt
    return ends


def test_all_files_come_back(checkpoint, helix, tmp_path):
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": [60, 3]}')
    assert helix("import", checkpoint, "--out", tmp_path / "run")[0] == 0
    assert helix("export", tmp_path / "run", "--out", tmp_path / "back")[0] == 0
    for name in (*FILES, "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (checkpoint / name).read_bytes(), name
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path / "back")
    assert theirs.eos_token_id == [60, 3]


def test_a_fine_tuned_run_keeps_them(checkpoint, helix, tmp_path):
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": [60, 3], "bos_token_id": 59}')
    (tmp_path / "texts").mkdir()
    for i in range(4):
        (tmp_path / "texts" / f"{i}.txt").write_text("w1 w2 w3 " * 30)
    assert helix("import", checkpoint, "--out", tmp_path / "run")[0] == 0
    settings = {"training.init": tmp_path / "run", "data.source": tmp_path / "texts", "training.steps": 1}
    settings |= {"training.seq_len": 8, "training.batch_size": 2}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    code, _, error = helix("train", tmp_path / "run" / "recipe.toml", *sets, "--runs", tmp_path / "tuned")
    assert code == 0, error
    (tuned,) = (tmp_path / "tuned").iterdir()
    found = load_run(tuned, backend="cpu").tokenizer
    assert (found.start, found.ends) == (59, {3, 60})
    assert helix("export", tuned, "--out", tmp_path / "back")[0] == 0
    assert (tmp_path / "back" / "chat_template.jinja").read_text() == FILES["chat_template.jinja"]
    assert json.loads((tmp_path / "back" / "generation_config.json").read_text())["eos_token_id"] == [60, 3]


def test_a_run_of_ones_own_says_them_to_transformers(checkpoint, helix, tmp_path):
    """Trained from scratch on a tokenizer: its run names the end tokens, and so does what is exported."""
    (checkpoint / "tokenizer_config.json").write_text('{"eos_token": "<|done|>", "bos_token": "<|begin|>"}')
    (tmp_path / "texts").mkdir()
    for i in range(4):
        (tmp_path / "texts" / f"{i}.txt").write_text("w1 w2 w3 " * 30)
    recipe = f"""
name = "own"
data = {{ source = "{tmp_path / "texts"}", tokenizer = "{checkpoint / "tokenizer.json"}" }}
training = {{ steps = 1, batch_size = 2, seq_len = 8 }}
[model]
vocab_size = 61
d_model = 16
n_layers = 1
mixer = {{ name = "mamba" }}
"""
    (tmp_path / "recipe.toml").write_text(recipe)
    code, _, error = helix("train", tmp_path / "recipe.toml", "--runs", tmp_path / "runs")
    assert code == 0, error
    (run,) = (tmp_path / "runs").iterdir()
    assert helix("export", run, "--out", tmp_path / "out")[0] == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.eos_token_id == [60]
    assert model.generation_config.bos_token_id == 59
    again = tmp_path / "again"
    assert helix("import", tmp_path / "out", "--out", again)[0] == 0
    assert load_run(again, backend="cpu").tokenizer.ends == {60}


def test_rwkv_is_rescaled_as_it_came(helix, tmp_path):
    random_model("rwkv-widths").save_pretrained(tmp_path / "saved")
    assert helix("import", tmp_path / "saved", "--out", tmp_path / "run")[0] == 0
    assert helix("export", tmp_path / "run", "--out", tmp_path / "back")[0] == 0
    assert json.loads((tmp_path / "back" / "config.json").read_text())["rescale_every"] == 2
