"""What a plugin raises or prints, wherever it is asked, stops no command and spoils no output."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import warnings

import pytest

import helix_core
from helix_core.errors import ComponentUnavailable
from helix_core.isolation import isolated
from helix_core.plugin_system import explain, probe, probing, select, use_registry

RAISES = {
    "exit": ("sys.exit(3)", "it called sys.exit(3)"),
    "skip": ("import pytest; pytest.skip('not here', allow_module_level=True)", "it raised Skipped: not here"),
    "fail": ("import pytest; pytest.fail('never')", "it raised Failed: never"),
    "cancelled": ("import asyncio; raise asyncio.CancelledError('gone')", "it raised CancelledError: gone"),
    "generator": ("raise GeneratorExit", "it raised GeneratorExit"),
    "panic": (
        "exec('class PanicException(BaseException): pass\\nraise PanicException(7)')",
        "it raised PanicException: 7",
    ),
    "memory": ("raise MemoryError", "MemoryError"),
    "speechless": (
        "exec('class Odd(Exception):\\n    def __str__(self): 1 / 0\\nraise Odd')",
        "Odd: (its text cannot be had: ZeroDivisionError)",
    ),
}
CASES = pytest.mark.parametrize(("statement", "reason"), RAISES.values(), ids=RAISES)


@CASES
def test_an_import(site, status, statement, reason):
    site.plugin("bad", statement)
    site.layers("good", "name='g'")
    registry = site.registry()
    kind, text = status(registry)["bad"]
    assert kind == "failed"
    assert reason in text
    assert [c.full_name for c in registry.components()] == ["good/g"]


@CASES
def test_a_hook_that_returns_components(site, status, statement, reason):
    site.plugin("bad", f"@hookimpl\ndef helix_layers():\n    {statement}\n")
    site.layers("good", "name='g'")
    registry = site.registry()
    assert reason in status(registry)["bad"][1]
    assert [c.full_name for c in registry.components()] == ["good/g"]


@CASES
def test_a_probe(site, statement, reason):
    site.backends("cpu", "name='cpu'")
    site.backends("gpu", "name='gpu', priority=9, probe='fake_gpu:ask'", extra=f"def ask():\n    {statement}\n")
    selection = explain("backend", registry=site.registry())
    assert selection.chosen.name == "cpu"
    assert reason in selection.warnings[0]


@CASES
def test_a_policy(site, statement, reason):
    site.backends("cpu", "name='cpu'")
    site.plugin("policy", f"@hookimpl\ndef helix_choose(kind, candidates):\n    {statement}\n")
    selection = explain("backend", registry=site.registry())
    assert selection.chosen.name == "cpu"
    assert reason in selection.warnings[0]


@CASES
def test_an_observer(site, statement, reason):
    site.plugin("bad", f"seen = []\n@hookimpl\ndef helix_event(event):\n    seen.append(event)\n    {statement}\n")
    with use_registry(site.registry()):
        with pytest.warns(RuntimeWarning, match="plugin 'bad' failed to observe 'first'"):
            helix_core.emit("first")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            helix_core.emit("second")
    assert len(sys.modules["fake_bad"].seen) == 1


@CASES
def test_a_target_and_its_module(site, statement, reason):
    source = f"import sys\ndef build():\n    {statement}\n"
    descriptors = "name='call', target='fake_call:build', summary=''", "name='load', target='fake_load:x', summary=''"
    calls = ", ".join(f"BackendDescriptor({d})" for d in descriptors)
    site.plugin(
        "bad",
        f"@hookimpl\ndef helix_backends():\n    return [{calls}]\n",
        fake_call=source,
        fake_load=f"import sys\n{statement}\n",
    )
    with use_registry(site.registry()):
        expected = MemoryError if reason == "MemoryError" else ComponentUnavailable
        with pytest.raises(expected) as error:  # what the user asked for may be too large: that is said as it is
            helix_core.create("backend", "call")
        assert expected is MemoryError or reason in str(error.value)
        with pytest.raises(ComponentUnavailable) as error:
            helix_core.create("backend", "load")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda site: site.registry(),
        lambda site: isolated(lambda: exec("raise KeyboardInterrupt")),
    ],
)
def test_ctrl_c_is_the_users(site, call):
    site.plugin("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        call(site)


# What is printed.

PRINTS = """
    import os
    print("printed")
    sys.__stdout__.write("past sys.stdout")
    os.write(1, b"by C code")
    os.system("echo by a child")
"""


def run(site, *arguments):
    """The command line in a process of its own that sees the fake plugins besides those installed."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site.folder), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "helix_core.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)


def test_what_is_printed_on_import_by_hooks_and_by_probes_spoils_no_json(site):
    body = PRINTS.replace("\n    ", "\n        ")
    site.plugin(
        "loud",
        PRINTS.replace("\n    ", "\n")
        + f"""
def ask():{body}
        return Availability(True, "ready")

@hookimpl
def helix_event(event):{body}

@hookimpl
def helix_layers():{body}
        return [LayerDescriptor(name="loud", target="a:b", summary="", probe="fake_loud:ask")]
""",
    )
    listed = run(site, "plugins", "--json")
    explained = run(site, "explain", "layer", "loud", "--json")
    for done, times in ((listed, 2), (explained, 3)):
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
        for text in ("printed", "past sys.stdout", "by C code", "by a child"):
            assert done.stderr.count(text) == times, (text, done.stderr)


def test_a_probe_that_prints_at_once_spoils_no_output(site, monkeypatch, capfd):
    start = threading.Thread.start

    def start_and_wait(thread):
        start(thread)
        thread.join(30)

    monkeypatch.setattr(threading.Thread, "start", start_and_wait)
    loud = "def ask():\n    print('printed')\n    return Availability(True, 'ready')\n"
    site.backends("gpu", "name='gpu', probe='fake_gpu:ask'", extra=loud)
    with use_registry(site.registry()):
        assert select("backend", "gpu").chosen.full_name == "gpu/gpu"
    assert capfd.readouterr() == ("", "printed\n")


def test_standard_output_comes_back_as_it_was(capfd):
    def closes():
        sys.stdout.write("lost?")
        sys.stdout = None
        os.close(1)
        raise ValueError

    before = sys.stdout
    for _ in range(3):
        with contextlib.suppress(ValueError):
            isolated(closes)
    assert sys.stdout is before
    os.write(1, b"still there")
    out, err = capfd.readouterr()
    assert out == "still there"
    assert err == "lost?" * 3


def test_two_threads_at_once_give_standard_output_back():
    before = sys.stdout
    from threading import Barrier, Thread

    barrier = Barrier(4)

    def work():
        for pause in (0.001, 0.003, 0.002):
            isolated(lambda pause=pause: time.sleep(pause))
            barrier.wait(10)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is before


# How long a probe may take.


def test_a_probe_that_does_not_answer_is_not_waited_for(site, monkeypatch):
    monkeypatch.setattr(probing, "PROBE_LIMIT_SECONDS", 0.2)
    site.backends("cpu", "name='cpu'")
    site.backends(
        "gpu",
        "name='gpu', priority=9, probe='fake_gpu:hangs'",
        extra="""
        import threading
        calls, go_on = [], threading.Event()

        def hangs():
            calls.append(1)
            go_on.wait(60)
            return Availability(True, "ready at last")
        """,
    )
    registry = site.registry()
    began = time.perf_counter()
    for _ in range(5):
        selection = explain("backend", registry=registry)
        assert selection.chosen.name == "cpu"
        assert "fake_gpu:hangs gave no answer within 0.2 s" in selection.warnings[0]
    assert time.perf_counter() - began < 2, "it is waited for once, not in every selection"
    with pytest.raises(ComponentUnavailable, match="gave no answer"):
        select("backend", "gpu", registry=registry)
    sys.modules["fake_gpu"].go_on.set()
    while not probe(registry.components("backend")[1].descriptor)[0].available:
        time.sleep(0.01)
    assert explain("backend", registry=registry).chosen.name == "gpu", "what it says later counts"
    assert sys.modules["fake_gpu"].calls == [1]


def test_a_hanging_probe_leaves_standard_output_alone_and_the_process_ends(site):
    site.layers("slow", "name='slow', probe='fake_slow:hangs'", extra="import time\ndef hangs(): time.sleep(300)\n")
    done = run(site, "explain", "layer", "slow", "--json")
    assert done.returncode == 1, done.stderr
    assert "gave no answer within 2 s" in json.loads(done.stdout)["error"]
