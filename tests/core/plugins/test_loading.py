"""Importing plugins: each fails alone, and only those that may are imported at all."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("sys.exit(3)", "RuntimeError: it called sys.exit(3)"),
        ("assert 1 > 2, 'odd'", "AssertionError: odd"),
        ("raise OSError('two\\nlines')", "OSError: two lines"),
        ("def broken(:", "SyntaxError: invalid syntax"),
    ],
)
def test_a_plugin_that_cannot_be_imported_fails_alone(site, status, source, reason):
    site.plugin("bad", source)
    site.layers("good", "name='g'")
    registry = site.registry()
    found = status(registry)
    line = 4  # after the imports that every fake plugin begins with
    assert found["bad"] == ("failed", f"cannot be imported: {reason} ({site.folder}/fake_bad.py:{line})")
    assert found["good"] == ("ok", "")
    assert [c.full_name for c in registry.components()] == ["good/g"]


def test_the_place_is_where_the_cause_is_not_where_it_was_imported(site, status):
    site.plugin("bad", "import deeper", deeper="\n\nraise ValueError('here')")
    assert f"{site.folder}/deeper.py:3" in status(site.registry())["bad"][1]


def test_ctrl_c_during_an_import_is_passed_on(site):
    site.plugin("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        site.registry()


@pytest.mark.parametrize("settings", [{"deny": ("b*",)}, {"deny": ("acme-*",)}, {"allow": ("good",)}])
def test_a_plugin_that_is_not_allowed_is_never_imported(site, status, settings):
    site.plugin("bad", "raise RuntimeError", dist="acme-bad")
    site.plugin("good")
    found = status(site.registry(**settings))
    assert found["bad"][0] == "denied"
    assert found["good"][0] == "ok"
    assert not site.imported("bad")


def test_deny_wins_over_allow(site, status):
    site.plugin("one")
    found = status(site.registry(allow=("one",), deny=("one",), origins={"plugins.deny": "/etc/helix.toml"}))
    assert found["one"] == ("denied", "matches 'one' in the deny list (/etc/helix.toml)")


@pytest.mark.parametrize(("api", "fits"), [("1.0", True), ("1.1", False), ("2.0", False), ("one", False)])
def test_the_plugin_api_of_a_module(site, status, api, fits):
    site.layers("one", "name='l'", extra=f"PLUGIN_API = {api!r}")
    registry = site.registry()
    assert (status(registry)["one"][0] == "ok") is fits
    assert bool(registry.components()) is fits


def test_a_plugin_may_not_ask_for_components_while_it_is_loaded(site):
    site.plugin("eager", "import helix_core\nhelix_core.components()")
    code = (
        f"import sys; sys.path.insert(0, {str(site.folder)!r})\n"
        "import helix_core\n"
        "print([p.reason for p in helix_core.plugins() if p.name == 'eager'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "while the plugins are still being loaded" in run.stdout


THREADS = """
import threading
import time
from helix_core.plugin_system import registry

built, seen = [], []

class Slow:
    def __init__(self):
        time.sleep(0.05)
        built.append(self)

registry.Registry = Slow
threads = [threading.Thread(target=lambda: seen.append(registry.get_registry())) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(built) == 1, built
assert seen == built * 4, seen
"""


def test_threads_share_one_registry():
    """In a process that has none yet."""
    subprocess.run([sys.executable, "-c", THREADS], check=True)
