"""`helix plugins`, `explain`, `describe` and `doctor`: what they say, as text and as JSON."""

import json

import pytest

from helix_core.cli.main import main
from helix_core.plugin_system import use_registry

TARGET = '''
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

import helix_core

class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    d_model: int = Field(description="width of the model")
    expand: int = 2

class build:
    """A layer that does nothing.

    (B, L, D) -> (B, L, D).
    """
    def __init__(self, config):
        pass

class Backend(helix_core.Backend):
    name = namespace = "numpy"
    xp = np
    asarray = to_numpy = staticmethod(np.asarray)

    def describe(self):
        return {"device": "abacus"}

class Refuses(Backend):
    def describe(self):
        raise OSError("beads missing")
'''
PROBES = """
    import time

    def broken(): return Availability(False, "driver too old", broken=True)

    def slow():
        time.sleep(0.06)
        return Availability(True, "ready")
"""


@pytest.fixture
def helix(site, capsys):
    """Run a command against the plugins installed so far: its exit code and output, JSON decoded."""

    def run(*arguments, **settings):
        with use_registry(site.registry(**settings)):
            code = main(list(arguments))
        out = capsys.readouterr().out
        return code, json.loads(out) if "--json" in arguments else out

    return run


def test_plugins(site, helix):
    site.layers("good", "name='a'", "name='b'", version="0.3")
    site.plugin("bad", "raise ImportError('libfoo')")
    site.plugin("out", "raise RuntimeError")
    code, rows = helix("plugins", "--json", deny=("out",))
    assert code == 0
    by_name = {row["name"]: row for row in rows}
    assert by_name["good"] == {
        "name": "good",
        "distribution": "helix-plugin-good",
        "version": "0.3",
        "module": "fake_good",
        "status": "ok",
        "reason": "",
        "editable": None,
        "components": {"layer": 2},
    }
    assert (by_name["bad"]["status"], by_name["out"]["status"]) == ("failed", "denied")
    assert "libfoo" in by_name["bad"]["reason"]
    code, text = helix("plugins", deny=("out",))
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert lines["good"].endswith("2 layers")
    assert f"{site.folder}/fake_bad.py:4" in lines["bad"]


def test_names_are_never_cut_in_a_pipe(site, helix):
    name = "a-plugin-with-quite-a-name-" * 6
    site.plugin(name.strip("-"), "raise ImportError('x' * 300)")
    _, text = helix("plugins")
    assert name.strip("-") in text
    assert "x" * 300 in text


def test_explain_says_what_and_why(site, helix):
    site.backends("cpu", "name='cpu'", "name='gpu', priority=3, probe='fake_cpu:broken'", extra=PROBES)
    code, text = helix("explain", "backend")
    assert code == 0
    assert "backend auto -> cpu/cpu  (highest priority (0) that can be used)" in text
    assert "refused cpu/gpu: driver too old" in text
    assert "warning: backend cpu/gpu is broken" in text
    code, facts = helix("explain", "backend", "--json")
    assert code == 0
    assert facts == {
        "kind": "backend",
        "requested": "auto",
        "chosen": "cpu/cpu",
        "how": "highest priority (0) that can be used",
        "error": None,
        "warnings": ["backend cpu/gpu is broken (driver too old)"],
        "candidates": [
            {"name": "cpu/gpu", "accepted": False, "reason": "driver too old", "broken": True},
            {"name": "cpu/cpu", "accepted": True, "reason": "ready", "broken": False},
        ],
    }


@pytest.mark.parametrize("arguments", [["backend", "gpu"], ["backend"], ["layer", "cpu"]])
def test_explain_exits_with_1_when_nothing_can_be_used(site, helix, arguments):
    site.backends("cpu", "name='gpu', probe='fake_cpu:broken'", extra=PROBES)
    code, text = helix("explain", *arguments)
    assert code == 1
    assert "-> nothing" in text
    code, facts = helix("explain", *arguments, "--json")
    assert code == 1
    assert facts["chosen"] is None
    assert facts["error"] in text


def test_explain_op_prints_the_trail(capsys):
    assert main(["explain", "op", "rms_norm", "--backend", "core/reference", "--mode", "infer", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["op"], row["chosen"]) == ("rms_norm", "core/reference")
    assert main(["explain", "op", "rms_nrom"]) == 2
    assert "did you mean 'rms_norm'" in capsys.readouterr().err


def test_describe_a_component(site, helix):
    site.layers("one", "name='idle', config='fake_target:Config', provides=('recurrent',)", fake_target=TARGET)
    code, facts = helix("describe", "layer", "idle", "--json")
    assert code == 0
    assert (facts["name"], facts["plugin"], facts["provides"]) == ("idle", "one", ["recurrent"])
    assert facts["doc"].startswith("A layer that does nothing.")
    assert facts["config_schema"]["required"] == ["d_model"]
    code, text = helix("describe", "layer", "idle")
    assert "A layer that does nothing." in text
    assert any(line.split() == ["d_model", "required", "width", "of", "the", "model"] for line in text.splitlines())


def test_a_component_that_cannot_run_here_can_be_described(site, helix):
    site.layers("one", "name='idle', requires=('absent',)", fake_target=TARGET)
    code, facts = helix("describe", "layer", "idle", "--json")
    assert code == 0
    assert facts["requires"] == ["absent"]
    assert facts["config_schema"] is None


def test_describe_a_kind(site, helix):
    site.layers("one", "name='a'", "name='b'")
    code, rows = helix("describe", "layer", "--json")
    assert code == 0
    assert rows == [{"name": n, "plugin": "one", "summary": ""} for n in ("a", "b")]


def test_doctor_finds_nothing_wrong(site, helix):
    site.backends("cpu", "name='cpu'", "name='odd', requires=('absent',)")
    (site.folder / "fake_target.py").write_text(TARGET + "build = Backend\n")
    code, report = helix("doctor", "--json", pins={"backend": "cpu"}, origins={"pin.backend": "HELIX_BACKEND"})
    assert code == 0
    assert report["problems"] == []
    assert set(report) == {"machine", "plugins", "backends", "settings", "problems", "notes"}
    by_name = {b["name"]: b for b in report["backends"]}
    assert by_name["cpu/cpu"]["facts"] == {"device": "abacus"}
    assert (by_name["cpu/odd"]["available"], by_name["cpu/odd"]["reason"]) == (
        False,
        "needs absent, not installed",
    )
    assert {"key": "pin.backend", "value": "cpu", "origin": "HELIX_BACKEND"} in report["settings"]
    code, text = helix("doctor")
    assert code == 0
    assert "no problems found" in text


@pytest.mark.parametrize(
    ("install", "problem"),
    [
        (
            lambda site: site.plugin("bad", "raise ImportError('libfoo')"),
            "plugin bad of helix-plugin-bad failed:",
        ),
        (
            lambda site: site.plugin("bad", requires=["absent"]),
            "is incompatible: needs absent, not installed",
        ),
        (
            lambda site: site.backends("gpu", "name='gpu', probe='fake_gpu:broken'", extra=PROBES),
            "backend gpu/gpu is broken: driver too old",
        ),
        (
            lambda site: site.backends("gpu", "name='gpu'", fake_target=TARGET + "build = Refuses\n"),
            "backend gpu/gpu is broken: OSError: beads missing",
        ),
    ],
)
def test_doctor_exits_with_1_when_something_is_broken(site, helix, install, problem):
    install(site)
    code, report = helix("doctor", "--json")
    assert code == 1
    assert any(problem in text for text in report["problems"])
    code, text = helix("doctor")
    assert code == 1
    assert problem in text


def test_doctor_names_a_slow_probe_without_calling_it_broken(site, helix):
    site.backends("cpu", "name='cpu', probe='fake_cpu:slow'", extra=PROBES)
    (site.folder / "fake_target.py").write_text(TARGET + "build = Backend\n")
    code, report = helix("doctor", "--json")
    assert code == 0
    assert report["problems"] == []
    assert "the probe of backend cpu/cpu took" in report["notes"][0]


def test_a_denied_plugin_is_not_a_problem(site, helix):
    site.plugin("out", "raise RuntimeError")
    assert helix("doctor", "--json", deny=("out",))[0] == 0


DESCRIPTORS = {
    "target": "Layer: name='l', target='no_such_module:X', summary=''",
    "attribute": "Layer: name='l', target='fake_there:X', summary=''",
    "class": "Layer: name='l', target='fake_there:Odd', summary=''",
    "config": "Layer: name='l', target='fake_there:Fine', config='fake_there:Gone', summary=''",
    "lax": "Layer: name='l', target='fake_there:Fine', config='fake_there:Odd', summary=''",
    "probe": "Layer: name='l', target='fake_there:Fine', probe='fake_there:Gone', summary=''",
    "command": "Command: name='l', target='fake_there:Odd', summary=''",
    "kernel": "Kernel: name='l', target='fake_there:X', summary='', op='silu', namespace='numpy'",
    "supports": "Kernel: name='l', target='fake_there:Odd', summary='', op='silu', namespace='numpy', supports='x:y'",
    "op": "Kernel: name='l', target='fake_there:Odd', summary='', op='slu', namespace='numpy'",
}
PROBLEMS = {
    "target": "no_such_module:X cannot be imported: ModuleNotFoundError",
    "attribute": "fake_there:X cannot be imported: AttributeError",
    "class": "fake_there:Odd: class Odd is no helix_core.kinds.layer.Layer",
    "config": "fake_there:Gone cannot be imported",
    "lax": "its config fake_there:Odd is not a pydantic model",
    "probe": "layer bad/l is broken: probe failed: AttributeError",
    "command": "which is no click.core.Command",
    "kernel": "fake_there:X cannot be imported: AttributeError",
    "supports": "x:y cannot be imported: ModuleNotFoundError",
    "op": "kernel bad/l is for an op 'slu', which there is not; did you mean 'silu'?",
}
THERE = """
import helix_core

class Odd:
    pass

class Fine(helix_core.Layer):
    pass
"""


@pytest.mark.parametrize("case", DESCRIPTORS)
def test_doctor_resolves_what_descriptors_name(site, helix, case):
    site.backends("cpu", "name='cpu'", fake_target=TARGET + "build = Backend\n")
    kind, _, fields = DESCRIPTORS[case].partition(": ")
    source = f"@hookimpl\ndef helix_{kind.lower()}s():\n    return [{kind}Descriptor({fields})]\n"
    site.plugin("bad", source, fake_there=THERE)
    code, report = helix("doctor", "--json")
    assert code == 1
    (problem,) = report["problems"]
    assert PROBLEMS[case] in problem
    assert "bad/l" in problem


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("Layer", "target='no_such_module:X', requires=('absent',)"),
        ("Layer", "target='no_such_module:X', probe='fake_there:no'"),
        ("Kernel", "target='no_such_module:X', op='silu', namespace='abacus'"),
        ("Layer", "target='fake_there:Fine', config='helix_core.kinds.layer:LayerConfig'"),
        ("Backend", "target='fake_there:no', requires=('absent',)"),
    ],
)
def test_doctor_leaves_alone_what_cannot_be_used_here_anyway(site, helix, kind, fields):
    site.backends("cpu", "name='cpu'", fake_target=TARGET + "build = Backend\n")
    source = f"@hookimpl\ndef helix_{kind.lower()}s():\n    return [{kind}Descriptor(name='l', summary='', {fields})]\n"
    no = "def no():\n    return helix_core.Availability(False, 'no')\n"
    site.plugin("fine", source, fake_there=THERE + no)
    code, report = helix("doctor", "--json")
    assert (code, report["problems"]) == (0, [])


def test_doctor_names_pins_of_what_is_not_there(site, helix):
    site.backends("cpu", "name='cpu'", fake_target=TARGET + "build = Backend\n")
    kernel = "KernelDescriptor(name='k', target='fake_target:np', summary='', op='silu', namespace='abacus')"
    site.plugin("one", f"@hookimpl\ndef helix_kernels():\n    return [{kernel}]\n")
    code, report = helix(
        "doctor", "--json", pins={"layer": "mamba9"}, kernels={"silu": "one/q", "gelu": "core/reference"}
    )
    assert code == 1
    first, second = report["problems"]
    assert "no layer named 'mamba9' is installed" in first
    assert "op 'silu' is pinned to kernel 'one/q', which is not installed; did you mean 'one/k'?" in second
