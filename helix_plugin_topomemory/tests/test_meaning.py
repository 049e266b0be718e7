"""Meaning induction: phases and their gates, prediction from links alone, the command and its report."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from helix_core.cli.main import cli
from helix_core.errors import ConfigError, UsageError
from helix_plugin_topomemory.links import LinkConfig, LinkGraph, State
from helix_plugin_topomemory.meaning import MeaningRecipe, induce
from helix_plugin_topomemory.meaning.contexts import Contexts
from helix_plugin_topomemory.meaning.recall import recall
from helix_plugin_topomemory.meaning.replay import ReplayPool
from helix_testing import BaseCommandTests


def words(rng, count):
    """Text of forty random words: what follows within a word is certain, the next word is chance."""
    made = [bytes(rng.integers(97, 123, size=rng.integers(3, 8)).tolist()) for _ in range(40)]
    return b" ".join(made[i] for i in rng.integers(40, size=count))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_bytes(words(np.random.default_rng(0), 20_000))
    (folder / "other.txt").write_bytes(np.random.default_rng(1).integers(97, 123, size=8000).astype(np.uint8).tobytes())
    return folder


def recipe(text, **more):
    data = {"source": str(text / "text.txt"), "epoch_bytes": 40_000, "held_out_bytes": 5000, "context_bits": 16}
    return MeaningRecipe.model_validate({"name": "test", "data": data | more.pop("data", {}), **more})


@pytest.fixture(scope="module")
def result(text):
    return induce(recipe(text, data={"transfer": str(text / "other.txt")}))


def test_the_phases_come_in_order_and_end_on_evidence(result):
    phases = "".join(epoch["phase"] for epoch in result.epochs)
    assert phases == "".join(sorted(phases))
    assert set(phases) == set("ABC")
    ends = {epoch["phase"]: epoch["ends"] for epoch in result.epochs if epoch["ends"]}
    assert ends["A"] == ends["B"] == "evidence"


def test_epochs_are_the_fallback(text):
    phase = {"theta_low": 0.2, "theta_high": 0.4, "link_npmi": 0.1, "replay_every": 50, "most_epochs": 2}
    never = {"new_links": 0.0, "jaccard": 1.0, "improvement": -1.0}
    epochs = induce(recipe(text, gates=never, a=phase, b=phase, c=phase)).epochs
    assert "".join(epoch["phase"] for epoch in epochs) == "AABBCC"
    assert [epoch["ends"] for epoch in epochs] == [None, "epochs"] * 3


def test_links_alone_predict_the_text_and_no_other(result):
    last = result.epochs[-1]
    assert last["bits"] < 0.6 * last["bits_off"]
    assert last["hit_rate"] > 0.6
    assert result.transfer["hit_rate"] < 0.2


def test_phase_c_makes_no_new_link(result):
    for epoch in result.epochs:
        if epoch["phase"] == "C":
            assert "candidate>U" not in epoch["moves"]


def test_every_phase_replays_as_often_as_its_recipe_says(result):
    data, replay = result.recipe.data, result.recipe.replay
    windows = data.ticks * math.ceil(data.epoch_bytes / data.ticks / replay.window)
    for epoch in result.epochs:
        replays = windows // getattr(result.recipe, epoch["phase"].lower()).replay_every
        assert epoch["replayed"] == replays * replay.sample


def test_a_seed_fixes_everything(text, result):
    again = induce(recipe(text, data={"transfer": str(text / "other.txt")}))
    strip = [{k: v for k, v in epoch.items() if k != "recall_us_per_byte"} for epoch in again.epochs]
    assert strip == [{k: v for k, v in epoch.items() if k != "recall_us_per_byte"} for epoch in result.epochs]


def test_recall_is_a_distribution(rng):
    graph, contexts = LinkGraph(LinkConfig(min_count=1, g2=0)), Contexts(2, 10, alphabet=5)
    codes = rng.choice(5, size=3000, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    codes[1::2] = codes[::2]
    for part in np.array_split(codes, 6):
        nodes, targets = contexts.pairs(part)
        graph.observe(nodes[nodes >= 0], np.broadcast_to(targets, nodes.shape)[nodes >= 0])
        graph.advance()
    seen = np.bincount(codes, minlength=5)
    for prefix in ([0], [1, 1], [4, 2, 2]):
        total = 0.0
        for code in range(5):
            text = np.array([*prefix, code])
            bits = [recall(graph, contexts, text[: len(text) - cut], seen, State.U).bits for cut in (0, 1)]
            total += 2.0 ** -(bits[0] * len(text) - bits[1] * len(prefix))
        assert total == pytest.approx(1, abs=1e-6)


def test_contexts_of_every_length_are_apart_and_codes_are_checked():
    nodes, targets = Contexts(3, 20).pairs(np.array([7, 7, 7, 7, 8]))
    assert targets.tolist() == [7, 7, 7, 7, 8]
    assert nodes[0].tolist()[0] == -1
    assert len(set(nodes[0][1:].tolist())) == 1
    assert len({int(nodes[n][3]) for n in range(3)}) == 3
    for wrong in ([1.5], [-1], [256]):
        with pytest.raises(UsageError, match="codes must"):
            Contexts(2, 10).pairs(np.array(wrong))


def test_replay_prefers_windows_whose_links_changed(monkeypatch):
    graph = LinkGraph()
    for _ in range(6):
        graph.observe([1] * 30 + [5] * 30, [2] * 30 + [6] * 30)
        graph.advance()
    rehearsed = []
    monkeypatch.setattr(graph, "rehearse", lambda a, b: rehearsed.append((*a.tolist(), *b.tolist())))
    for seed in range(40):
        pool = ReplayPool(10, 0.01, np.random.default_rng(seed))
        pool.add(np.array([1], np.int32), np.array([2], np.int32))
        pool.add(np.array([50], np.int32), np.array([51], np.int32))
        assert pool.replay(graph, 1) == 1
    assert rehearsed.count((1, 2)) > 35


def test_the_command_writes_its_report(text, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(
        f'name = "small"\n[data]\nsource = "{text / "text.txt"}"\nepoch_bytes = 20000\nheld_out_bytes = 2000\n'
        "context_bits = 14\norder = 2\n"
    )
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, ["meaning", str(file), "--out", str(out), "--json"], catch_exceptions=False)
    summary = json.loads(done.stdout)
    report = json.loads((out / "report.json").read_text())
    assert report["summary"] == summary
    assert {"links", "moves", "hit_rate", "bits"} <= set(report["epochs"][0])
    assert sum(sum(report["stability"][s]) for s in "UIS") == sum(summary[f"links_{s}"] for s in "UIS")
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert (out / "links").is_dir()


def test_a_wrong_recipe_names_its_key(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('name = "x"\n[data]\nordre = 3\n')
    with pytest.raises(ConfigError, match=r"data\.ordre"):
        CliRunner().invoke(cli, ["meaning", str(file), "--out", str(tmp_path)], catch_exceptions=False)


class TestMeaning(BaseCommandTests):
    command = "meaning"
    arguments = ("recipe.toml", "--out=out")
    refused = (["absent.toml", "--out=out"], ["recipe.toml"], ["text.txt", "--out=out"])

    def prepare(self, folder):
        (folder / "text.txt").write_bytes(words(np.random.default_rng(0), 2000))
        data = 'source = "text.txt"\nepoch_bytes = 4000\nheld_out_bytes = 1000\ncontext_bits = 12\norder = 1\n'
        (folder / "recipe.toml").write_text(f'name = "small"\n[data]\n{data}')
