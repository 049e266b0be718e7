"""The graphics card's benchmark where there is none: its checks run, its table is whole, and it times nothing."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("helix_plugin_cuda", "triton")):
    pytest.skip("needs helix-plugin-cuda and triton", allow_module_level=True)

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu/bench.py"
INTERPRETED = {**os.environ, "TRITON_INTERPRET": "1"}


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=INTERPRETED, capture_output=True, text=True, timeout=200)


def test_checks_alone(tmp_path):
    done = run("--check-only", "rms_norm", "swiglu", "--json", tmp_path / "r.json", "--table", tmp_path / "r.md")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["device"] == "Triton's interpreter"
    rows = {(r["op"], r["side"], r["dtype"]): r["check"] for r in report["rows"]}
    assert rows["rms_norm", "cuda/rms_norm", "bfloat16"] == "passed"
    assert rows["rms_norm", "torch/rms_norm", "float32"] == "passed"
    assert not any("forward_ms" in r for r in report["rows"])
    assert (tmp_path / "r.md").read_text().count("\n| ") == len(report["rows"]) + 1


def test_it_times_nothing_in_the_interpreter():
    done = run("rms_norm")
    assert done.returncode == 2
    assert "--check-only" in done.stderr


def test_an_op_that_is_not_timed():
    assert "no op is named wkv" in run("--check-only", "wkv").stderr


def test_inputs_fit_their_ops(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import inputs

    from helix_core.ops import OPS
    from helix_plugin_cuda.plugin import KERNELS

    assert {work.op for work in inputs.works()} == set(KERNELS)
    for work in inputs.works():
        op = OPS[work.op]
        assert set(work.shapes) <= set(op.arrays)
        shapes = [work.shapes.get(name) for name in op.arrays]
        assert all(name in op.optional for name in set(op.arrays) - set(work.shapes))
        assert op.shapes(*shapes, **{**op.attrs, **work.attrs})
    sys.modules.pop("inputs")
