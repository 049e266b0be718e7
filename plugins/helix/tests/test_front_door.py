"""`import helix`: train, load, generate and evaluate without knowing the parts."""

import json
import subprocess
import sys

import numpy as np
import pytest

import helix
from helix_core.errors import ConfigError, DataError, HelixError, UsageError
from helix_plugin_huggingface.writing import export_run
from helix_plugin_lm.runs import RunFolder

RECIPE = {
    "name": "tiny",
    "model": {"d_model": 16, "n_layers": 1, "mixer": {"name": "mamba", "d_state": 4}},
    "training": {"steps": 4, "batch_size": 2, "seq_len": 16},
    "sample": {"prompt": "to", "max_bytes": 4},
}
TEXTS = [f"to be or not to be, that is question {n}. " * 8 for n in range(6)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return helix.train(RECIPE, runs=tmp_path_factory.mktemp("runs"), texts=TEXTS)


def test_importing_it_costs_next_to_nothing():
    code = "import sys, helix; print(*sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_was_trained_is_loaded_again(run):
    assert run.loaded.step == 4
    for source in (run, RunFolder(run.path), run.path, str(run.path)):
        again = helix.load(source)
        assert again.generate("to be", max_tokens=12) == run.generate("to be", max_tokens=12)
    assert repr(run).startswith(f"Run({str(run.path)!r}, step=4, backend=")


def test_it_says_what_the_command_line_says(run):
    command = [sys.executable, "-m", "helix_core.cli.main", "generate", str(run.path), "--prompt", "to be", "--json"]
    done = subprocess.run([*command, "--max-tokens", "20", "--seed", "3"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["text"] == run.generate("to be", max_tokens=20, seed=3)


def test_a_stream_is_the_text_in_pieces_and_stops(run):
    pieces = list(run.stream("to be", max_tokens=30, temperature=0))
    whole = "".join(pieces)
    assert whole == run.generate("to be", max_tokens=30, temperature=0)
    assert len(pieces) > 1
    stop = next(c for c in whole if c.isascii())  # bytes that are no UTF-8 are shown as U+FFFD, which is none of them
    assert run.generate("to be", max_tokens=30, temperature=0, stop=[stop]) == whole[: whole.index(stop)]
    with pytest.raises(UsageError, match=r"write stop=\['x'\]"):
        run.generate("to be", stop="x")


def test_logits_of_a_text_are_those_of_its_tokens(run):
    found = run.logits("to be")
    assert found.shape == (6, 256)  # the token in front of a document, and five bytes
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, run.logits(np.array([0, *b"to be"])))
    assert run.generate("to be", max_tokens=1, temperature=0).encode() == bytes([int(found[-1].argmax())])
    for wrong in (np.array([0, 256]), np.array([-1]), np.array([0.5]), np.zeros((1, 2), int)):
        with pytest.raises(UsageError, match="tokens"):
            run.logits(wrong)


def test_texts_are_evaluated_as_files_are(run, tmp_path):
    for n, text in enumerate(TEXTS[:3]):
        (tmp_path / f"{n}.txt").write_text(text)
    texts, files = run.evaluate(TEXTS[:3]), run.evaluate(tmp_path)
    assert texts.bits_per_byte == pytest.approx(files.bits_per_byte, rel=1e-6)
    assert texts.bytes == files.bytes == sum(map(len, TEXTS[:3]))
    with pytest.raises(DataError, match="no text"):
        run.evaluate(["", b""])
    with pytest.raises(UsageError, match="str or bytes, not int"):
        run.evaluate([1])


def test_keywords_override_the_recipe_by_section_or_key(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(
        'name = "t"\n[model]\nd_model = 16\nn_layers = 1\nmixer = {name = "mamba", d_state = 4}\n'
        "[training]\nsteps = 3\nbatch_size = 2\nseq_len = 16\n"
    )
    options = {"training": {"steps": 1}, "model.mixer.d_state": 2, "sample": {"max_bytes": 2}}
    made = helix.train(file, runs=tmp_path / "runs", texts=TEXTS, **options)
    assert made.loaded.step == 1
    assert made.loaded.spec.model.mixer[0].options == {"d_state": 2}
    assert RECIPE["training"]["steps"] == 4  # the caller's dict is the caller's


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trainig": {"steps": 1}}, "unknown key 'trainig'"),
        ({"training": {"step": 1}}, "keyword training: unknown key 'training.step'; did you mean 'steps'?"),
        ({"training.steps": -1}, "keyword training: training.steps"),
        ({"name.x": 1}, "'name' is a value, not a section"),
    ],
)
def test_what_a_recipe_does_not_know_is_said(tmp_path, options, said):
    with pytest.raises(ConfigError) as raised:
        helix.train(RECIPE, runs=tmp_path, texts=TEXTS, **options)
    assert said in str(raised.value)


def test_texts_are_the_only_source(tmp_path):
    with pytest.raises(UsageError, match="two sources"):
        helix.train(RECIPE, runs=tmp_path, texts=TEXTS, data={"source": "docs"})
    with pytest.raises(DataError, match="no text to learn from"):
        helix.train(RECIPE, runs=tmp_path, texts=[])


def test_a_run_of_texts_can_be_resumed(run):
    from helix_plugin_training import load_recipe, resume

    further = resume(run_folder := RunFolder(run.path), load_recipe(run_folder.recipe_file, ["training.steps=5"]))
    assert helix.load(further).loaded.step == 5


def test_a_foreign_checkpoint_is_used_where_it_lies(run, tmp_path):
    export_run(run.path, tmp_path / "hf")
    before = sorted(p.name for p in (tmp_path / "hf").iterdir())
    foreign = helix.load(tmp_path / "hf")
    np.testing.assert_allclose(foreign.logits("to be"), helix.load(run.path).logits("to be"), atol=1e-5)
    assert sorted(p.name for p in (tmp_path / "hf").iterdir()) == before


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(HelixError, match="not a run folder"):
        helix.load(tmp_path)
