"""Series, images, graphs, text and pairs have the structure they say they have."""

import json
import re

import networkx as nx
import numpy as np
import pytest
from scipy import stats

from helix_core.errors import ConfigError
from helix_core.plugin_system import create
from helix_plugin_synthetic.images.fractals import FRACTALS
from helix_plugin_synthetic.images.shapes import circumradius, coverage
from helix_plugin_synthetic.paired.scenes import describe


def samples(name, n=50, seed=0, **options):
    made = create("generator", f"synthetic/{name}", **options)
    return [made.sample(seed, i) for i in range(n)]


def test_trend_season_and_noise_add_up():
    found = samples("trend-seasonality", noise=0.5, curvature=1e-4)
    rest = np.stack([s["values"] - s["trend"] - s["season"] for s in found]).ravel()
    assert stats.kstest(rest / 0.5, "norm").pvalue > 1e-3
    quiet = samples("trend-seasonality", n=1, noise=0.0, slope=0.5, curvature=0.1, level=3.0, amplitudes=[0])[0]
    t = np.arange(512)
    assert np.allclose(quiet["values"], 3 + 0.5 * t + 0.1 * t**2, rtol=1e-6)


@pytest.mark.parametrize("gaps", ["single", "blocks"])
def test_missing_values(gaps):
    found = np.stack([np.isnan(s["values"]) for s in samples("arma", n=300, missing=0.2, gaps=gaps, gap_length=8)])
    shares = found.mean(1)
    assert abs(shares.mean() - 0.2) < 5 * shares.std() / np.sqrt(300)
    starts = (found[:, 1:] & ~found[:, :-1]).sum()
    assert found[:, 1:].sum() / starts == pytest.approx(8 if gaps == "blocks" else 1.25, rel=0.1)
    # What is missing changes nothing else.
    whole = samples("arma", n=1)[0]["values"]
    holey = samples("arma", n=1, missing=0.2, gaps=gaps)[0]["values"]
    assert np.array_equal(whole[~np.isnan(holey)], holey[~np.isnan(holey)])


def test_regimes_last_as_long_as_they_say():
    found = samples("regime-shifts", n=200, dwell=20, noise=0.0)
    regime = np.stack([s["regime"] for s in found])
    jumps = (np.diff(regime, axis=1) != 0).mean()
    assert jumps == pytest.approx(1 / 20, rel=0.05)
    assert np.array_equal(np.stack([s["values"] for s in found]), 3 * regime)
    assert set(np.unique(regime)) == {0, 1, 2}


@pytest.mark.parametrize("label", range(4))
def test_shapes_have_the_area_of_their_circle(label):
    for angle in (0.0, 0.4, 2.0):
        cover = coverage(96, label, np.array([47.3, 48.1]), 22.0, angle)
        assert cover.sum() == pytest.approx(np.pi * 22**2, rel=0.01)
        rows, columns = np.nonzero(cover > 0.5)
        assert np.hypot(rows - 47.3, columns - 48.1).max() == pytest.approx(22 * circumradius(label), abs=1.5)
        assert (rows.mean(), columns.mean()) == pytest.approx((47.3, 48.1), abs=0.5)


def test_gratings_have_their_frequency_and_angle():
    checked = 0
    for sample in samples("textures", n=30, size=64):
        if sample["label"] != 0:
            continue
        window = np.hanning(64)[:, None] * np.hanning(64)
        spectrum = np.abs(np.fft.fft2((sample["image"] - sample["image"].mean()) * window, (512, 512)))
        row, column = np.unravel_index(np.argmax(spectrum[:256]), (256, 512))
        row, column = row / 8, (column - 512 if column > 256 else column) / 8
        assert np.hypot(row, column) == pytest.approx(sample["frequency"], abs=0.4)
        turned = (np.arctan2(row, column) - sample["angle"] + np.pi / 2) % np.pi - np.pi / 2
        assert abs(turned) < 0.08
        checked += 1
    assert checked >= 5


def test_fractals_have_their_dimension():
    """By counting boxes on unrotated sets of 3^k or 2^k pixels, where boxes fit the sets exactly."""
    for size, base, kinds in ((81, 3, (1, 2, 3)), (128, 2, (0,))):
        for sample in samples("fractals", n=16, size=size, rotate=False, points=40_000):
            if sample["label"] not in kinds:
                continue
            image = sample["image"] > 0
            levels = [base**k for k in range(4)]
            counts = [image.reshape(size // b, b, size // b, b).any((1, 3)).sum() for b in levels]
            slope = -np.polyfit(np.log(levels), np.log(counts), 1)[0]
            assert slope == pytest.approx(sample["dimension"], abs=0.06), FRACTALS[sample["label"]]


def test_graphs():
    for sample in samples("barabasi-albert", nodes=60, m=3, n=5):
        assert len(sample["edges"]) == 3 * (60 - 3)
        assert nx.is_connected(nx.Graph(sample["edges"].tolist()))
    for sample in samples("watts-strogatz", nodes=40, k=6, p=0.0, n=2):
        assert set(np.bincount(sample["edges"].ravel())) == {6}
    for sample in samples("erdos-renyi", nodes=40, p=1.0, n=2):
        assert len(sample["edges"]) == 40 * 39 // 2
    for name in ("erdos-renyi", "barabasi-albert", "watts-strogatz", "stochastic-block"):
        for sample in samples(name, n=5):
            u, v = sample["edges"].T
            assert (u < v).all()
            assert len(np.unique(sample["edges"], axis=0)) == len(u) == len(sample["weights"])
            assert v.max() < 100
            assert sample["weights"].min() >= np.float32(0.1)


def test_blocks_are_dense_inside_and_told_by_features():
    made = create("generator", "synthetic/stochastic-block", nodes=80, blocks=4, inside=0.3, between=0.05, signal=3.0)
    inside = between = 0
    for i in range(40):
        sample = made.sample(2, i)
        same = sample["label"][sample["edges"][:, 0]] == sample["label"][sample["edges"][:, 1]]
        inside, between = inside + same.sum(), between + (~same).sum()
        nearest = np.linalg.norm(sample["features"][:, None] - made.world(2), axis=-1).argmin(1)
        assert (nearest == sample["label"]).mean() > 0.8
    assert stats.binomtest(int(inside), 40 * 4 * 190, 0.3).pvalue > 1e-3
    assert stats.binomtest(int(between), 40 * 6 * 400, 0.05).pvalue > 1e-3


def test_english_agrees():
    text = "\n".join(s["text"] for s in samples("grammar-text", n=60))
    assert re.search(r"\b(cat|river) (sleeps|waits|sings) \.", text)
    plural = r"^(?:the|many)(?: (?:old|green|quiet|small))? (?:cats|rivers|teachers|machines) (\w+)"
    assert set(re.findall(plural, text, re.M)) == {"sleep", "wait", "sing", "see", "follow", "hear"}
    assert all(line.endswith(" .") for line in text.splitlines())


def test_a_grammar_of_ones_own():
    found = samples("grammar-text", n=200, sentences=1, grammar={"X": ["a X b", "", "c"]}, start="X")
    assert all(re.fullmatch(r"((a )*)c?\s?((b ?)*)", s["text"]) for s in found)
    assert all(s["text"].count("a") == s["text"].count("b") for s in found)
    with pytest.raises(ConfigError, match="need not end"):
        samples("grammar-text", grammar={"X": ["X X", "a"]}, start="X")


def test_templates_can_be_read_back():
    made = create("generator", "synthetic/templates")
    for i in range(100):
        sample = made.sample(0, i)
        values = json.loads(sample["values"])
        assert sample["text"] == made.config.templates[sample["template"]].format(**values)


def test_captions_match_unless_planted_otherwise():
    for mismatch in (0.0, 0.4):
        found = samples("scenes", n=150, mismatch=mismatch, size=32, sound=256)
        true = [s["caption"] == describe(s["latent"]) for s in found]
        assert true == [bool(s["matched"]) for s in found]
        assert stats.binomtest(sum(not t for t in true), 150, mismatch).pvalue > 1e-3
