"""`helix motifs`: what it prints is an option that a mixture of experts takes."""

import json
import tomllib

import numpy as np
import pytest

from helix_core.cli.main import main
from helix_core.plugin_system import create
from helix_testing import BaseCommandTests


class TestMotifs(BaseCommandTests):
    command = "motifs"
    arguments = ("text", "--max-length=4")
    refused = (["absent"], ["text", "--max-bytes=2"])

    def prepare(self, folder):
        (folder / "text").write_bytes(bytes(range(97, 123)) + b"say hi " * 40)


@pytest.fixture
def planted(tmp_path):
    """Random letters with two runs planted, one of them no text."""
    rng = np.random.default_rng(0)
    pieces = []
    for i in range(400):
        pieces += [bytes(rng.integers(97, 123, size=20).tolist()), (b'say "hi"', b"\xff\xfe\x00")[i % 2]]
    (tmp_path / "data.bin").write_bytes(b"".join(pieces))
    return tmp_path / "data.bin"


def run(capsys, *arguments):
    code = main([str(a) for a in ("motifs", *arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_it_prints_an_option_of_a_mixture_of_experts(planted, capsys):
    code, out, _ = run(capsys, planted, "--count", 2)
    assert code == 0
    motifs = tomllib.loads(out)["motifs"]
    assert sorted(map(str, motifs)) == sorted(map(str, ['say "hi"', [255, 254, 0]]))
    expert = {"name": "swiglu", "d_ff": 8}
    layer = create("layer", "moe", d_model=8, n_experts=2, router="motif", expert=expert, motifs=motifs)
    assert set(layer.config.motifs) == {tuple(b'say "hi"'), (255, 254, 0)}


def test_json_has_the_counts(planted, capsys):
    code, out, _ = run(capsys, planted, "--json", "--count", 1, "--max-bytes", 6000)
    (first,) = json.loads(out)
    assert code == 0
    assert first["count"] > 10 * first["expected"]


def test_data_without_motifs_is_refused(tmp_path, capsys):
    (tmp_path / "noise.bin").write_bytes(np.random.default_rng(0).integers(0, 256, 3000).astype(np.uint8).tobytes())
    code, out, err = run(capsys, tmp_path / "noise.bin")
    assert code == 1
    assert out == ""
    assert "no run of bytes comes back" in err
    code, _, err = run(capsys, tmp_path / "absent")
    assert code == 1
    assert "absent" in err
