"""Span infilling: masked samples of files, filling in from both sides, the command and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

import helix_core
from helix_core.cli.main import main
from helix_core.errors import DataError, GenerationError, UsageError
from helix_plugin_hyena.infill import fill, parse
from helix_plugin_hyena.masked_spans import MASK
from helix_plugin_training.data.task import HELD_OUT
from helix_testing import BaseGeneratorTests

HERE = str(Path(__file__).parent / "*.py")


class TestMaskedSpans(BaseGeneratorTests):
    generator = "masked-spans"
    configs = (
        {"source": HERE, "validation": 0.3, "seq_len": 80},
        {"source": HERE, "validation": 0.3, "seq_len": 20, "share": 0.01, "max_span": 3},
    )
    impossible = ({"share": 0.0}, {"max_span": 80}, {"validation": 1.0}, {"seq_len": 1})


@pytest.fixture
def files(tmp_path):
    """Two long files and a short one: held out is what has capitals."""
    (tmp_path / "a.txt").write_bytes(b"abcd" * 500)
    (tmp_path / "b.txt").write_bytes(b"xy")
    return tmp_path


def test_a_sample_is_a_window_with_spans_masked(files):
    made = helix_core.create("generator", "masked-spans", source=str(files / "a.txt"), seq_len=64, share=0.25)
    runs = []
    for index in range(200):
        sample = made.sample(0, index)
        text = sample["targets"].astype(np.uint8).tobytes()
        assert text in b"abcd" * 20
        assert np.array_equal(sample["inputs"] == MASK, sample["mask"])
        assert np.array_equal(sample["inputs"][~sample["mask"]], sample["targets"][~sample["mask"]])
        assert sample["mask"].sum() == 16
        edges = np.flatnonzero(np.diff(np.concatenate([[0], sample["mask"], [0]])))
        runs += (edges[1::2] - edges[::2]).tolist()
    assert max(runs) > 8
    assert min(runs) == 1


def test_held_out_files_are_never_trained_on(tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.txt").write_bytes(bytes([65 + i]) * 100)
    made = helix_core.create("generator", "masked-spans", source=str(tmp_path), seq_len=30, validation=0.3)
    seen = [{int(made.sample(1, start + i)["targets"][0]) for i in range(300)} for start in (0, HELD_OUT)]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 20


def test_a_short_file_is_followed_by_zeros_that_are_not_masked(files):
    (files / "b.txt").write_bytes(b"xyz" * 4)
    made = helix_core.create("generator", "masked-spans", source=str(files / "b.txt"), seq_len=64, validation=0.4)
    sample = made.sample(0, 0)
    end = int(np.flatnonzero(sample["targets"])[-1]) + 1
    assert end < 12
    assert not sample["mask"][end:].any()
    with pytest.raises(DataError, match="absent"):
        helix_core.create("generator", "masked-spans", source=str(files / "absent")).sample(0, 0)


def test_blanks_are_runs_of_the_mask():
    assert parse(b"a<|3|>b<|1|>").tolist() == [97, MASK, MASK, MASK, 98, MASK]
    assert parse(b"<|x|><|2|>").tolist() == [*b"<|x|>", MASK, MASK]
    for text, message in (
        (b"plain", "no blank"),
        (b"", "no blank"),
        (b"a<|0|>", "no bytes to fill in"),
        (b"<|65537|>", "more than 65,536"),
        (b"<|65536|><|1|>", "more than 65,536"),
    ):
        with pytest.raises(UsageError, match=message):
            parse(text)


class Copying:
    """Says of a masked byte what its right neighbour is, and is the surer the larger that byte."""

    def apply(self, F, params, tokens):
        logits = np.zeros((*tokens.shape, 257))
        right = np.roll(tokens, -1, axis=1)
        known = right < 256
        np.put_along_axis(logits, np.where(known, right, 0)[..., None], np.where(known, right / 8.0, 0)[..., None], 2)
        return logits * params["scale"], None


def test_the_surest_bytes_come_first_and_later_ones_agree_with_them():
    backend = helix_core.create("backend", "core/reference")
    F, tokens = backend.bind(mode="infer"), parse(b"a<|3|>z<|2|>q")
    copied = fill(Copying(), backend, F, {"scale": 1.0}, tokens, passes=5)
    assert copied.astype(np.uint8).tobytes() == b"azzzzqqq"
    at_once = fill(Copying(), backend, F, {"scale": 1.0}, tokens, passes=1)
    assert at_once.astype(np.uint8).tobytes() == b"a\0\0zz\0qq"
    drawn = {
        fill(Copying(), backend, F, {"scale": 0.1}, tokens, passes=5, temperature=1.0, seed=s)[1] for s in range(9)
    }
    assert len(drawn) > 3
    with pytest.raises(GenerationError, match="not finite"):
        fill(Copying(), backend, F, {"scale": np.nan}, tokens, passes=1)


def run_cli(capsysbinary, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsysbinary.readouterr()
    return code, captured.out, captured.err.decode()


RECIPE = """
name = "infill"
[model]
vocab_size = 257
d_model = 32
n_layers = 2
mixer = {{ name = "hyena", bidirectional = true, l_max = 32, filter_order = 16 }}
[data]
generator = {{ name = "masked-spans", source = "{source}", seq_len = 32, max_span = 6 }}
validation_samples = 20
[training]
steps = {steps}
batch_size = 16
[optimizer]
name = "adamw"
lr = 1e-2
"""


def test_a_model_learns_to_fill_in_from_both_sides(files, tmp_path, capsysbinary):
    """What is behind a blank decides: `abcd` goes on, whichever of its letters comes next."""
    words = [b"(aaa)", b"[bbb]", b"{ccc}", b"<ddd>"]
    rng = np.random.default_rng(0)
    (files / "words.txt").write_bytes(b"".join(words[i] for i in rng.integers(4, size=3000)))
    (tmp_path / "recipe.toml").write_text(RECIPE.format(source=files / "words.txt", steps=120))
    code, _, err = run_cli(capsysbinary, "train", tmp_path / "recipe.toml", "--runs", tmp_path / "runs")
    assert code == 0, err
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "summary.json").read_text())["val_accuracy"] > 0.6
    text = "(aaa)<|4|>][bbb]{<|3|>}<ddd>"
    code, out, _ = run_cli(capsysbinary, "infill", run, "--text", text, "--backend", "cpu")
    assert code == 0
    assert out == b"(aaa)[bbb][bbb]{ccc}<ddd>\n"
    code, out, _ = run_cli(capsysbinary, "infill", run, "--text", text, "--json", "--passes", 2)
    assert json.loads(out)["filled"] == ["[bbb", "ccc"]

    code, _, err = run_cli(capsysbinary, "infill", run, "--text", "no blank")
    assert code == 2
    assert "no blank to fill in" in err
    code, _, err = run_cli(capsysbinary, "infill", run, "--text", text, "--temperature", "-1")
    assert code == 2
    assert "temperature must be" in err
    code, _, err = run_cli(capsysbinary, "generate", run, "--prompt", "(")
    assert code == 2
    assert "tokens of this run's model are no text" in err


def test_a_run_of_another_kind_is_refused(files, tmp_path, capsysbinary):
    recipe = RECIPE.format(source="", steps=1).replace(", bidirectional = true", "").replace("257", "256")
    recipe = recipe[: recipe.index("[data]")] + "[training]" + recipe.split("[training]")[1]
    (tmp_path / "recipe.toml").write_text(recipe)
    code, _, err = run_cli(
        capsysbinary, "train", tmp_path / "recipe.toml", "--runs", tmp_path / "runs",
        "--set", f"data.source={files}", "--set", "training.seq_len=16", "--set", "sample.max_bytes=4",
    )  # fmt: skip
    assert code == 0, err
    (run,) = (tmp_path / "runs").iterdir()
    code, _, err = run_cli(capsysbinary, "infill", run, "--text", "a<|2|>")
    assert code == 2
    assert "did not learn to fill in spans" in err
