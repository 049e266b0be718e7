"""From samples back to options; planted faults are found; reports say so."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from helix_core.cli.main import cli
from helix_core.errors import DataError, UsageError
from helix_core.plugin_system import create
from helix_plugin_synthetic.verify import Check, estimators, round_trips, verify, write_report
from helix_plugin_synthetic.verify.report import judge

CASES = {
    "markov": ({}, {"order": 2, "vocab_size": 5}),
    "zipf": ({}, {"exponent": 1.3, "shift": 2.0}),
    "pcfg": ({},),
    "copying": ({},),
    "selective-copying": ({"context": 64},),
    "induction-heads": ({},),
    "associative-recall": ({},),
    "trend-seasonality": ({}, {"slope": -0.2, "missing": 0.2}, {"curvature": 1e-3, "missing": 0.1, "gaps": "blocks"}),
    "arma": ({}, {"ar": [0.9], "ma": [], "length": 300}),
    "power-law-noise": ({}, {"exponent": 0.0}, {"exponent": 2.0, "length": 401}),
    "regime-shifts": ({}, {"dwell": 5, "regimes": 2}),
    "shapes": ({},),
    "textures": ({},),
    "fractals": ({},),
    "erdos-renyi": ({},),
    "barabasi-albert": ({"nodes": 200},),
    "watts-strogatz": ({},),
    "stochastic-block": ({},),
    "grammar-text": ({},),
    "templates": ({},),
    "scenes": ({}, {"mismatch": 0.3}),
}
FEW = {"arma": 12, "fractals": 24, "scenes": 60, "shapes": 60, "barabasi-albert": 60}


def made(name, options, seed, n=None):
    generator = create("generator", f"synthetic/{name}", **options)
    return generator, [generator.sample(seed, i) for i in range(n or FEW.get(name, 120))]


@pytest.mark.parametrize(("name", "options"), [(k, o) for k, many in CASES.items() for o in many], ids=str)
def test_the_options_come_back(name, options):
    generator, samples = made(name, options, seed=11)
    checks = round_trips(generator, samples, 11)
    assert checks
    failed = [c for c, ok in zip(checks, judge(checks), strict=True) if ok is False]
    assert not failed
    for check in checks:
        if check.low is not None and check.p_value > 0.01:
            assert check.low <= check.expected <= check.high


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [(k, o) for k, many in CASES.items() for o in many], ids=str)
def test_the_options_come_back_for_fresh_seeds(name, options, rng):
    for seed in rng.integers(2**32, size=5).tolist():
        generator, samples = made(name, options, seed)
        checks = round_trips(generator, samples, seed)
        assert False not in judge(checks), [c for c in checks if (c.p_value or 1) < 1e-4 or c.ok is False]


WRONG = [
    ("markov", {}, {"concentration": 0.35}),
    ("zipf", {}, {"exponent": 1.1}),
    ("pcfg", {}, {"branching": 0.3}),
    ("trend-seasonality", {}, {"slope": 0.0102}),
    ("trend-seasonality", {}, {"periods": [24.01]}),
    ("arma", {}, {"ar": [0.0, -0.2]}),
    ("power-law-noise", {}, {"exponent": 1.1}),
    ("regime-shifts", {}, {"dwell": 42.0}),
    ("erdos-renyi", {}, {"p": 0.105}),
    ("barabasi-albert", {}, {"m": 2}),
    ("watts-strogatz", {}, {"p": 0.2}),
    ("stochastic-block", {}, {"between": 0.025}),
    ("scenes", {"mismatch": 0.3}, {"mismatch": 0.0}),
    ("trend-seasonality", {"missing": 0.1}, {"missing": 0.15}),
]


@pytest.mark.parametrize(("name", "options", "other"), WRONG, ids=str)
def test_samples_of_other_options_are_found_out(name, options, other):
    """Judged as if they had been made with the first options; that they were made with others must show."""
    generator, _ = made(name, options, seed=3, n=1)
    _, samples = made(name, {**options, **other}, seed=3)
    assert False in judge(round_trips(generator, samples, 3))


def test_swapped_answers_are_found():
    generator, samples = made("associative-recall", {}, seed=0, n=30)
    places = np.flatnonzero(samples[4]["mask"])[:2]
    samples[4]["targets"][places] = samples[4]["targets"][places[::-1]]
    assert False in judge(round_trips(generator, samples, 0))


@pytest.mark.parametrize("fault", ["drift", "nan", "another sample", "copies"])
def test_faults_of_any_generator_are_found(fault):
    generator, samples = made("power-law-noise", {}, seed=5, n=200)
    if fault == "drift":
        for i, s in enumerate(samples):
            s["values"] = (s["values"] + i / 40).astype(np.float32)
    elif fault == "nan":
        samples[7]["values"][3] = np.nan
    elif fault == "another sample":
        samples[9] = generator.sample(5, 10)
    else:
        for i in range(140, 200):
            samples[i] = samples[i - 140]
    report = verify("x", generator, samples, seed=5)
    assert not report.ok
    names = [c.name for c, ok in zip(report.checks, report.passed, strict=True) if ok is False]
    expected = {"drift": "C2ST", "nan": "schema", "another sample": "again", "copies": "again"}
    assert any(expected[fault] in name for name in names)
    copies = next(c for c in report.checks if "copies" in c.name)
    assert copies.value == {"another sample": 1, "copies": 60}.get(fault, 0)


def test_reports_rarely_find_fault_where_there_is_none():
    """Holm's method over a report's p-values: here none of 40 reports of other seeds."""
    for seed in range(40):
        generator, samples = made("zipf", {"seq_len": 32}, seed, n=60)
        assert verify("zipf", generator, samples, seed=seed).ok


def test_p_values_of_a_report_are_judged_together():
    checks = [Check("a", p_value=4e-4), Check("b", p_value=0.5), Check("c", ok=False), Check("d")]
    assert judge(checks) == [False, True, False, None]
    # With more tests the least p-value must be smaller; and with it rejected, the next need be less small.
    more = [Check("e", p_value=0.6), Check("f", p_value=0.7)]
    assert judge([*checks, *more])[0] is True
    assert judge([Check("g", p_value=1e-4), Check("h", p_value=3e-4), *more])[:2] == [False, False]
    assert judge([Check("g", p_value=1e-3), Check("h", p_value=3e-4), *more])[:2] == [True, True]


@pytest.mark.parametrize("name", ["markov", "scenes", "stochastic-block", "regime-shifts", "templates"])
def test_a_report_is_written_whole(tmp_path, name):
    generator, samples = made(name, {}, 2, n=40)
    report = verify(name, generator, samples, seed=2)
    for _ in range(2):  # a report may be written over an older one
        write_report(report, generator, samples, tmp_path / "r")
    told = json.loads((tmp_path / "r" / "report.json").read_text())
    assert told["ok"] is True
    assert told["checks"][0]["passed"] is True
    page = (tmp_path / "r" / "index.html").read_text()
    for check in report.checks:
        assert check.name in page
    for plot in ("samples.png", "checks.png"):
        if plot in page:
            assert (tmp_path / "r" / plot).read_bytes().startswith(b"\x89PNG")
    assert "checks.png" in page
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    with pytest.raises(UsageError, match="holds no report"):
        write_report(report, generator, samples, tmp_path / "mine")


def run(*args):
    return CliRunner().invoke(cli, ["data", *map(str, args)], catch_exceptions=False)


def test_the_command_verifies_generators_and_datasets(tmp_path):
    assert "transition matrix" in run("verify", "markov", "-n", 60, "--out", tmp_path / "r").stdout
    run("generate", "erdos-renyi", "--out", tmp_path / "d", "-n", 60, "--seed", 5)
    assert json.loads(run("verify", tmp_path / "d", "--json").stdout)["samples"] == 60
    with pytest.raises(UsageError, match="own options"):
        run("verify", tmp_path / "d", "--set", "p=0.5")
    with pytest.raises(UsageError, match="at least 1"):
        run("verify", "markov", "-n", 0)


def test_a_dataset_that_claims_other_options_fails(tmp_path):
    run("generate", "erdos-renyi", "--out", tmp_path / "d", "-n", 60)
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    manifest["plan"]["options"]["p"] = 0.2
    (tmp_path / "d" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="failed: samples that differ when generated again"):
        run("verify", tmp_path / "d")


def test_estimates_of_the_period_have_the_error_they_say(rng):
    """Over many series, the standardised errors have unit variance."""
    generator = create("generator", "synthetic/trend-seasonality", length=200)
    found = [estimators.period(generator.sample(8, i)["values"]) for i in range(60)]
    z = np.array([(e.value - 24) / e.error for e in found])
    assert 0.7 < z.std() < 1.4
    assert abs(z.mean()) < 0.5
