"""Presets are what was recorded."""

import json

import pytest
from click.testing import CliRunner

from helix_core.cli.main import cli
from helix_core.errors import DataError, UsageError
from helix_plugin_synthetic import presets
from helix_plugin_synthetic.presets import BLOCK, PRESETS, fingerprint, preset
from helix_plugin_synthetic.storage import open_dataset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_was_recorded(name):
    assert preset(name).fingerprint() == preset(name).content


def run(*args):
    return CliRunner().invoke(cli, ["data", *map(str, args)], catch_exceptions=False)


def test_a_preset_on_disk_has_the_recorded_content(tmp_path):
    run("generate", "--preset", "facts", "--out", tmp_path, "--format", "safetensors", "--shard-size", 333)
    samples = list(open_dataset(tmp_path))
    assert fingerprint(samples[k : k + BLOCK] for k in range(0, len(samples), BLOCK)) == preset("facts").content
    listed = json.loads(run("presets", "--json").stdout)
    assert {"name": "facts", "generator": "templates", "n": 1000, "content": preset("facts").content} in listed
    assert "as recorded" in run("presets", "--check", "facts").stdout


def test_another_content_is_reported(monkeypatch):
    other = presets.Preset("x", "", "copying", 5, "0" * 32)
    monkeypatch.setitem(PRESETS, "x", other)
    with pytest.raises(DataError, match=f"is {other.fingerprint()} here, recorded is 000"):
        run("presets", "--check", "x")


def test_requests_that_make_no_sense(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'facts'"):
        run("generate", "--preset", "fact", "--out", tmp_path / "a")
    with pytest.raises(UsageError, match="a preset is fixed"):
        run("generate", "--preset", "facts", "-n", 3, "--out", tmp_path / "a")
    with pytest.raises(UsageError, match="NAME and -n, or --preset"):
        run("generate", "zipf", "--out", tmp_path / "a")
