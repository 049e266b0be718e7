"""Distillation: modes of known filters, the recurrent layer by the kit and by definition, the command."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import helix_core
from helix_core.cli.main import cli
from helix_core.errors import UsageError
from helix_core.kinds.params import init_params
from helix_plugin_hyena.distill import distill
from helix_plugin_hyena.modal import fit
from helix_testing import BaseLayerTests


class TestHyenaRecurrent(BaseLayerTests):
    layer = "hyena_recurrent"
    configs = (
        {"d_model": 8, "modes": 4},
        {"d_model": 6, "order": 3, "num_heads": 2, "modes": 3},
        {"d_model": 5, "short_filter_order": 1, "modes": 1, "longest": 64.0},
        {"d_model": 6, "num_heads": 2, "outer_product": True, "modes": 2},
    )


def waves(poles, residues, length):
    return 2 * (np.array(poles) ** np.arange(length)[:, None] @ np.array(residues)).real


@pytest.mark.parametrize(
    ("poles", "residues"),
    [
        ([0.9], [0.5]),
        ([-0.7, 0.5], [0.5, -1.0]),
        ([0.95 * np.exp(0.3j), 0.8 * np.exp(2.0j), 0.99], [0.3 - 0.2j, 1j, 0.1]),
        ([np.exp(0.1j)], [1.0]),
    ],
)
@pytest.mark.parametrize("length", [20, 700])
def test_a_filter_that_is_a_sum_of_modes_is_found(poles, residues, length):
    found = fit(waves(poles, residues, length), len(poles) + 2)
    assert found.error < 1e-8
    assert np.abs(found.taps(2 * length) - waves(poles, residues, 2 * length)).max() < 1e-6
    assert (found.log_a[:, 0] <= 0).all()


def test_the_error_is_that_of_the_taps_and_falls_with_the_modes():
    h = np.random.default_rng(0).normal(size=100) * 0.95 ** np.arange(100)
    errors = []
    for modes in (2, 8, 20):
        found = fit(h, modes)
        assert found.error == pytest.approx(np.linalg.norm(found.taps(100) - h) / np.linalg.norm(h), rel=1e-9)
        errors.append(found.error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_degenerate_filters():
    assert fit(np.zeros(30), 3).error == 0
    assert not fit(np.zeros(30), 3).taps(9).any()
    impulse = np.zeros(30)
    impulse[0] = 2.0
    assert np.abs(fit(impulse, 2).taps(30) - impulse).max() < 1e-9
    assert fit(np.array([1.0, 0.5]), 4).error < 1.0
    growing = fit(1.1 ** np.arange(50.0), 2)
    assert (growing.log_a[:, 0] <= 0).all(), "a pole outside the unit circle"


@pytest.mark.parametrize("options", [{}, {"order": 3, "num_heads": 2, "decay_shift": 0.05}])
def test_the_distilled_layer_computes_what_the_layer_does(options):
    layer = helix_core.create("layer", "hyena", d_model=6, l_max=40, filter_order=8, **options)
    p = init_params(layer.param_specs(), 0)
    made, errors = distill(layer.config, p, 16)
    assert errors.shape == (layer.config.filters,)
    assert errors.max() < 1e-4
    short = {name: getattr(layer.config, name) for name in ("order", "num_heads")}
    other = helix_core.create("layer", "hyena_recurrent", d_model=6, modes=16, **short)
    F = helix_core.create("backend", "core/reference").bind(dtype="float64")
    assert {k: v.shape for k, v in made.items()} == {k: spec.shape for k, spec in other.param_specs().items()}
    x = np.random.default_rng(1).normal(size=(2, 40, 6))
    expected, _ = layer.apply(F, {k: v.astype(np.float64) for k, v in p.items()}, x)
    double = {k: v.astype(np.float64) for k, v in made.items()}
    found, _ = other.apply(F, double, x)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    stepped, _ = other.apply(F, double, x, state=other.init_state(F, 2))
    assert np.abs(stepped - expected).max() < 1e-3 * np.abs(expected).max()


def test_looking_ahead_cannot_be_distilled():
    layer = helix_core.create("layer", "hyena", d_model=4, l_max=20, bidirectional=True)
    with pytest.raises(UsageError, match="looks ahead"):
        distill(layer.config, init_params(layer.param_specs(), 0), 4)


def helix(*args):
    backend = [] if args[0] == "train" else ["--backend", "cpu"]
    return CliRunner().invoke(cli, [*map(str, args), *backend], standalone_mode=False, catch_exceptions=False)


RECIPE = """
name = "tiny"
[model]
d_model = 16
n_layers = 2
mixer = [{ name = "hyena", l_max = 48, filter_order = 8 }, { name = "MIXER" }]
[data]
source = "DATA"
[backend]
name = "cpu"
[training]
steps = 3
batch_size = 2
seq_len = 32
"""


def trained(tmp_path, mixer, hyena="hyena"):
    rng = np.random.default_rng(0)
    for i in range(4):
        text = b" ".join(b"word%d" % n for n in rng.integers(50, size=300))
        (tmp_path / f"{i}.txt").write_bytes(text)
    text = RECIPE.replace("DATA", str(tmp_path / "*.txt")).replace("MIXER", mixer).replace('"hyena"', f'"{hyena}"')
    if hyena != "hyena":
        text = text.replace(", l_max = 48, filter_order = 8", "")
    (tmp_path / "recipe.toml").write_text(text)
    helix("train", tmp_path / "recipe.toml", "--runs", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    return run


def test_the_command_writes_a_run_that_the_other_tools_use(tmp_path):
    run = trained(tmp_path, "hyena_recurrent")
    result = json.loads(helix("distill", run, "--modes", 24, "--runs", tmp_path / "made", "--json").stdout)
    assert result["error_max"] < 1e-2
    assert result["bits_per_byte_distilled"] == pytest.approx(result["bits_per_byte"], abs=2e-3)
    made = result["run"]
    said = json.loads(helix("eval", made, "--data", tmp_path / "0.txt", "--json").stdout)
    before = json.loads(helix("eval", run, "--data", tmp_path / "0.txt", "--json").stdout)
    assert said["bits_per_byte"] == pytest.approx(before["bits_per_byte"], abs=2e-3)
    assert said["step"] == 3
    greedy = [helix("generate", r, "--prompt", "word", "--max-bytes", 8, "--temperature", 0) for r in (run, made)]
    assert greedy[0].stdout == greedy[1].stdout
    text = helix("distill", run, "--modes", 2, "--runs", tmp_path / "made", "--max-bytes", 500).output
    assert "bits/byte before" in text
    assert "block 0" in text
    assert "block 1" not in text


def test_a_run_without_hyena_has_nothing_to_distill(tmp_path):
    run = trained(tmp_path, "hyena_recurrent", hyena="hyena_recurrent")
    with pytest.raises(UsageError, match="nothing to distill"):
        helix("distill", run, "--runs", tmp_path / "made")
    assert not (tmp_path / "made").exists(), "a run folder was left behind"
