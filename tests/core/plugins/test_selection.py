"""Which component is used, and why not the others."""

import warnings

import pytest

from helix_core import AmbiguousComponent, ComponentNotFound, ComponentUnavailable, UsageError
from helix_core.plugin_system import HelixWarning, explain, select
from helix_testing.dists import write_dist

PROBES = """
    def absent(): return Availability(False, "no such device")
    def broken(): return Availability(False, "driver too old", broken=True)
    def crashes(): return 1 / 0
    def exits(): sys.exit(4)
    def wrong(): return True
"""


def reasons(selection):
    return {c.component.full_name: c.reason for c in selection.candidates}


def test_names(site):
    site.layers("one", "name='mamba'", "name='s4'")
    site.layers("two", "name='mamba'")
    registry = site.registry()
    exact = select("layer", "two/mamba", registry=registry)
    assert (exact.chosen.full_name, exact.how) == ("two/mamba", "exact name")
    short = select("layer", "s4", registry=registry)
    assert (short.chosen.full_name, short.how) == ("one/s4", "only component of that name")
    with pytest.raises(AmbiguousComponent, match="ask for one/mamba or two/mamba"):
        select("layer", "mamba", registry=registry)


def test_a_mistyped_name_gets_the_nearest_one_and_the_list(site):
    site.layers("one", "name='retnet'", "name='hyena'")
    with pytest.raises(ComponentNotFound) as error:
        select("layer", "hyenna", registry=site.registry())
    assert str(error.value) == (
        "no layer named 'hyenna' is installed; did you mean 'hyena'?\n  -> installed: hyena, retnet"
    )


def test_an_unknown_kind():
    with pytest.raises(UsageError, match="did you mean 'layer'"):
        explain("layers")


def test_only_first_party_components_are_offered_for_install(site):
    registry = site.registry()
    with pytest.raises(ComponentNotFound, match="pip install helix-plugin-ssm"):
        select("layer", "mamba", registry=registry)
    for name in ("mamba-7", "other/mamba", "lattice"):
        with pytest.raises(ComponentNotFound) as error:
            select("layer", name, registry=registry)
        assert "pip install" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "options", "settings", "why"),
    [
        ("raise OSError('libcuda')", {}, {}, "failed: cannot be imported: OSError: libcuda"),
        ("", {"requires": ["absent>=2"]}, {}, "incompatible: needs absent>=2, not installed"),
        ("", {}, {"deny": ("ssm",)}, "denied: matches 'ssm' in the deny list"),
    ],
)
def test_installed_but_broken_says_what_broke_and_never_says_install(site, source, options, settings, why):
    site.plugin("ssm", source, dist="Helix_Plugin_SSM", **options)
    with pytest.raises(ComponentUnavailable) as error:
        select("layer", "mamba", registry=site.registry(**settings))
    assert f"installed but {why}" in str(error.value)
    assert "pip install" not in str(error.value)


def test_a_plugin_that_works_but_lacks_the_component_is_not_offered_for_install(site):
    site.layers("ssm", "name='s5'")
    with pytest.raises(ComponentNotFound) as error:
        select("layer", "mamba", registry=site.registry())
    assert "pip install" not in str(error.value)


def test_a_broken_third_party_plugin_is_named_where_something_is_missing(site):
    site.plugin("lattices", "raise OSError('torn')")
    with pytest.raises(ComponentNotFound, match="plugin lattices failed: cannot be imported: OSError: torn"):
        select("layer", "lattice", registry=site.registry())


def test_auto_takes_the_highest_priority_and_says_why_not_the_others(site):
    site.backends(
        "one",
        "name='slow'",
        "name='fast', priority=5, provides=('grad',)",
        "name='faster', priority=7",
        "name='needy', priority=8, provides=('grad',), requires=('absent>=2',)",
        "name='gone', priority=9, provides=('grad',), probe='fake_one:absent'",
        extra=PROBES,
    )
    selection = select("backend", needs=["grad"], registry=site.registry())
    assert selection.chosen.full_name == "one/fast"
    assert selection.how == "highest priority (5) that can be used"
    assert reasons(selection) == {
        "one/gone": "no such device",
        "one/needy": "needs absent>=2, not installed",
        "one/faster": "does not provide grad",
        "one/fast": "ready",
        "one/slow": "does not provide grad",
    }


def test_equal_priorities_are_settled_by_name(site):
    site.backends("b", "name='x'")
    site.backends("a", "name='y'")
    assert select("backend", registry=site.registry()).chosen.full_name == "a/y"


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("broken", "driver too old"),
        ("crashes", "probe failed: ZeroDivisionError"),
        ("exits", "probe failed: RuntimeError: it called sys.exit(4)"),
        ("wrong", "probe failed: TypeError: it returned bool, not Availability"),
        ("no_such", "probe failed: AttributeError"),
    ],
)
def test_a_broken_accelerator(site, probe, reason):
    site.backends("cpu", "name='cpu'")
    site.backends("gpu", f"name='gpu', priority=9, probe='fake_gpu:{probe}'", extra=PROBES)
    registry = site.registry()
    with pytest.warns(HelixWarning, match="backend gpu/gpu is broken.*using backend cpu/cpu") as caught:
        assert select("backend", registry=registry).chosen.full_name == "cpu/cpu"
    assert reason in str(caught[0].message)
    with pytest.raises(ComponentUnavailable, match=r"'gpu/gpu' is installed but broken") as error:
        select("backend", "gpu", registry=registry)
    assert reason in str(error.value)
    with pytest.raises(ComponentUnavailable, match="gpu/gpu is broken"):
        select("backend", registry=site.registry(strict=True))


def test_a_broken_backend_that_would_not_have_been_chosen_is_no_concern(site):
    site.backends("cpu", "name='cpu'", "name='odd', priority=-1, probe='fake_cpu:broken'", extra=PROBES)
    assert select("backend", registry=site.registry(strict=True)).chosen.name == "cpu"


def test_what_is_for_those_who_ask_is_never_chosen_by_auto(site):
    probe = "def emulated():\n    return Availability(True, 'an emulator', by_name=True)\n"
    site.backends("cpu", "name='cpu'")
    site.backends("gpu", "name='gpu', priority=9, probe='fake_gpu:emulated', provides=('grad',)", extra=probe)
    registry = site.registry()
    selection = explain("backend", registry=registry)
    assert selection.chosen.full_name == "cpu/cpu"
    assert selection.candidates[0].reason == "an emulator; only when it is asked for by name"
    assert selection.warnings == ()
    assert select("backend", "gpu", registry=registry).chosen.full_name == "gpu/gpu"
    with pytest.raises(ComponentUnavailable, match="only when it is asked for by name"):
        select("backend", needs=["grad"], registry=registry)


def test_a_plugin_that_failed_does_not_make_auto_silently_use_the_cpu(site):
    site.backends("cpu", "name='cpu'")
    site.plugin("gpu", requires=["absent"])
    with pytest.warns(HelixWarning, match="plugin gpu of helix-plugin-gpu is incompatible: needs absent"):
        assert select("backend", registry=site.registry()).chosen.name == "cpu"
    with pytest.raises(ComponentUnavailable, match="needs absent"):
        select("backend", registry=site.registry(strict=True))
    assert select("backend", registry=site.registry(strict=True, deny=("gpu",))).chosen.name == "cpu"
    assert select("backend", "cpu", registry=site.registry(strict=True)).chosen.name == "cpu"


def test_nothing_usable_lists_every_reason(site):
    site.backends("one", "name='a', probe='fake_one:absent'", "name='b', requires=('absent',)", extra=PROBES)
    with pytest.raises(ComponentUnavailable) as error:
        select("backend", registry=site.registry())
    assert "one/a: no such device" in str(error.value)
    assert "one/b: needs absent, not installed" in str(error.value)


def test_explain_is_the_same_choice_without_raising_or_warning(site):
    site.backends("cpu", "name='cpu'", "name='gpu', priority=9, probe='fake_cpu:broken'", extra=PROBES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selection = explain("backend", registry=site.registry())
        refused = explain("backend", "gpu", registry=site.registry())
    assert selection.component.full_name == "cpu/cpu"
    assert selection.warnings == ("backend cpu/gpu is broken (driver too old)",)
    assert refused.component is None
    assert isinstance(refused.error, ComponentUnavailable)


def test_a_pin_decides_auto_and_never_falls_back(site):
    site.backends("one", "name='a', priority=9", "name='b'", "name='c', probe='fake_one:absent'", extra=PROBES)

    def pinned(name, origin):
        registry = site.registry(pins={"backend": name}, origins={"pin.backend": origin})
        return explain("backend", registry=registry)

    assert (pinned("b", "HELIX_BACKEND").chosen.name, pinned("b", "HELIX_BACKEND").how) == (
        "b",
        "pinned by HELIX_BACKEND",
    )
    assert pinned("b", "HELIX_BACKEND").requested == "auto"
    assert pinned("one/b", "/home/me/helix.toml").how == "pinned in /home/me/helix.toml"
    for name in ("c", "cuda"):
        selection = pinned(name, "HELIX_BACKEND")
        assert selection.component is None
        assert "(pinned by HELIX_BACKEND)" in str(selection.error)


def test_an_explicit_name_wins_over_a_pin(site):
    site.backends("one", "name='a'", "name='b'")
    assert select("backend", "a", registry=site.registry(pins={"backend": "b"})).chosen.name == "a"


def policy(body):
    return f"@hookimpl\ndef helix_choose(kind, candidates):\n    {body}\n"


def test_a_policy_plugin_chooses_after_pins_and_before_priority(site):
    site.backends("one", "name='a', priority=9", "name='b'", "name='c'")
    site.plugin("site", policy("return 'one/b' if kind == 'backend' else None"))
    selection = select("backend", registry=site.registry())
    assert (selection.chosen.name, selection.how) == ("b", "helix_choose of site")
    assert select("backend", registry=site.registry(pins={"backend": "c"})).chosen.name == "c"


def test_a_policy_that_names_what_cannot_be_used_is_an_error(site):
    site.backends("one", "name='a'", "name='b', probe='fake_one:absent'", extra=PROBES)
    site.plugin("site", policy("return 'b'"))
    with pytest.raises(ComponentUnavailable, match="plugin 'site' chose backend 'b'"):
        select("backend", registry=site.registry())


def test_a_policy_that_raises_is_warned_about(site):
    site.layers("one", "name='a'")
    site.plugin("site", policy("1 / 0"))
    with pytest.warns(HelixWarning, match="helix_choose of plugin site failed"):
        assert select("layer", registry=site.registry()).chosen.name == "a"
    with pytest.raises(ComponentUnavailable, match="helix_choose of plugin site failed"):
        select("layer", registry=site.registry(strict=True))


def test_replaces_counts_under_auto_only(site):
    site.layers("old", "name='mamba', priority=9")
    site.layers("new", "name='mamba2', replaces=('old/mamba',)")
    registry = site.registry()
    selection = select("layer", registry=registry)
    assert selection.chosen.full_name == "new/mamba2"
    assert reasons(selection)["old/mamba"] == "replaced by new/mamba2"
    assert select("layer", "mamba", registry=registry).chosen.full_name == "old/mamba"


def test_what_cannot_be_used_replaces_nothing(site):
    site.layers("old", "name='mamba'")
    site.layers("new", "name='mamba2', replaces=('old/mamba',), requires=('absent',)")
    assert select("layer", registry=site.registry()).chosen.full_name == "old/mamba"


def test_components_that_replace_each_other_or_themselves(site):
    site.layers("a", "name='x', replaces=('b/y', 'a/x')")
    site.layers("b", "name='y', priority=1, replaces=('a/x',)")
    assert select("layer", registry=site.registry()).chosen.full_name == "b/y"


def test_a_requirement_is_checked_from_metadata_not_by_import(site):
    write_dist(site.folder, "heavy", "3.0", modules={"heavy.py": "raise RuntimeError"})
    site.layers("one", "name='a', requires=('heavy>=2',)")
    assert select("layer", "a", registry=site.registry()).chosen.name == "a"
