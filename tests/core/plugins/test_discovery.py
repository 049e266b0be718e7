"""What is found, and what is refused from metadata alone."""

import shutil

import pytest

import helix_core
from helix_core.plugin_system.discovery import GROUP, discover
from helix_testing.dists import write_dist

EXPLODES = "raise RuntimeError('imported')"


def find(site, *folders):
    return discover(helix_core.__version__, path=[str(f) for f in folders or [site.folder]])


def test_plugins_are_found_without_being_imported(site):
    site.plugin("one", EXPLODES, version="2.5")
    (found,) = find(site)
    assert (found.name, found.module, found.distribution, found.version) == (
        "one",
        "fake_one",
        "helix-plugin-one",
        "2.5",
    )
    assert found.editable is None
    assert not site.imported("one")


def test_an_editable_install_shows_its_folder(site):
    write_dist(
        site.folder,
        "dev",
        entry_points={GROUP: {"dev": "dev"}},
        direct_url='{"url": "file:///home/me/my%20plugin", "dir_info": {"editable": true}}',
    )
    assert find(site)[0].editable == "/home/me/my plugin"


def test_the_first_copy_on_the_path_counts(site, tmp_path):
    later = tmp_path / "later"
    site.plugin("one", version="2.0")
    site.plugin("one", version="1.0", folder=later)
    assert [f.version for f in find(site, site.folder, later)] == ["2.0"]


def test_a_copy_that_is_hidden_on_the_path_is_not_a_plugin(site, tmp_path):
    later = tmp_path / "later"
    write_dist(site.folder, "helix_plugin.ONE", "3.0")
    site.plugin("one", folder=later)
    assert find(site, later)
    assert find(site, site.folder, later) == []


def test_a_plugin_for_another_core_is_refused_before_import(site, status):
    site.plugin("old", EXPLODES, requires=["helix-core>=7.1,<8"])
    site.plugin("fits", requires=[f"helix_core=={helix_core.__version__}"])
    found = status(site.registry())
    assert found["old"] == (
        "incompatible",
        f"is for helix-core<8,>=7.1, this is helix-core {helix_core.__version__}",
    )
    assert found["fits"] == ("ok", "")


def test_a_missing_requirement_is_a_reason_before_import(site, status):
    site.plugin("needy", EXPLODES, requires=["no-such-thing>=2", "pytest<1", 'absent; extra == "gpu"'])
    kind, reason = status(site.registry())["needy"]
    assert kind == "incompatible"
    assert reason == f"needs no-such-thing>=2, not installed; needs pytest<1, found {pytest.__version__}"


def test_a_name_taken_twice_goes_to_the_first_distribution(site):
    site.plugin("same", dist="a-first")
    site.plugin("same", dist="b-second")
    first, second = (p for p in site.registry().plugins() if p.name == "same")
    assert (first.distribution, first.status) == ("a-first", "ok")
    assert (second.distribution, second.status) == ("b-second", "incompatible")
    assert "a-first" in second.reason
    assert "b-second" in second.reason


def test_denying_one_of_two_settles_a_name_taken_twice(site):
    site.plugin("same", dist="a-first")
    site.plugin("same", dist="b-second")
    registry = site.registry(deny=("a-first",))
    assert {p.distribution: p.status for p in registry.plugins() if p.name == "same"} == {
        "a-first": "denied",
        "b-second": "ok",
    }


@pytest.mark.parametrize("name", ["core", "Shout", "a.b"])
def test_names_that_a_plugin_cannot_have(site, name):
    write_dist(site.folder, "bad-name", entry_points={GROUP: {name: "fake_bad"}})
    (info,) = (p for p in site.registry().plugins() if p.distribution == "bad-name")
    assert info.status == "incompatible"
    assert repr(name) in info.reason


def test_unreadable_metadata_hides_no_other_plugin(site):
    site.plugin("good")
    (site.plugin("bare") / "METADATA").unlink()
    by_name = {p.name: p for p in site.registry().plugins()}
    assert by_name["good"].status == "ok"
    assert by_name["bare"].status == "incompatible"
    assert "reinstall" in by_name["bare"].reason


def test_a_malformed_entry_point_file_warns_and_hides_no_other_plugin(site):
    site.plugin("good")
    (site.plugin("torn") / "entry_points.txt").write_text(f"[{GROUP}]\nnothing useful\n")
    (write_dist(site.folder, "stranger") / "entry_points.txt").write_text("[other.group]\nnothing useful\n")
    with pytest.warns(RuntimeWarning, match="torn") as caught:
        assert [f.name for f in find(site)] == ["good"]
    assert not any("stranger" in str(w.message) for w in caught)


LATIN, WIDE = f"[{GROUP}]\nété = mod\n".encode("latin-1"), f"[{GROUP}]\nx = mod\n".encode("utf-16")


@pytest.mark.parametrize("data", [LATIN, WIDE], ids=["latin-1", "utf-16"])
def test_an_entry_point_file_that_is_not_utf_8_warns_and_hides_no_other_plugin(site, data):
    site.plugin("good")
    (site.plugin("torn") / "entry_points.txt").write_bytes(data)
    (write_dist(site.folder, "stranger") / "entry_points.txt").write_bytes("[other.group]\né = x\n".encode("latin-1"))
    with pytest.warns(RuntimeWarning, match=r"cannot be read.*helix_plugin_torn.*reinstall") as caught:
        assert [f.name for f in find(site)] == ["good"]
    assert not any("stranger" in str(w.message) for w in caught)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (f"\ufeff[{GROUP}]\nx = mod\n", "a byte-order mark hides its first line"),
        (f"[ {GROUP} ]\nx = mod\n", "nothing below .* is found"),
    ],
    ids=["byte-order mark", "spaces"],
)
def test_a_header_that_is_not_recognized_warns_and_hides_no_other_plugin(site, data, problem):
    site.plugin("good")
    (site.plugin("torn") / "entry_points.txt").write_text(data, encoding="utf-8")
    (write_dist(site.folder, "stranger") / "entry_points.txt").write_text(
        data.replace(GROUP, "other.group"), encoding="utf-8"
    )
    (write_dist(site.folder, "mentions") / "entry_points.txt").write_text(f"# [{GROUP}]\n[other.group]\nx = mod\n")
    with pytest.warns(RuntimeWarning, match=rf"cannot be read \({problem}\).*helix_plugin_torn.*reinstall") as caught:
        assert [f.name for f in find(site)] == ["good"]
    assert len(caught) == 1


def test_metadata_that_is_not_utf_8_refuses_its_plugin_alone(site):
    site.plugin("good")
    (site.plugin("torn") / "METADATA").write_bytes("Name: helix-plugin-torn\nVersion: 1\nAuthor: é\n".encode("latin-1"))
    by_name = {p.name: (p.status, p.reason) for p in site.registry().plugins()}
    assert by_name["good"] == ("ok", "")
    assert by_name["torn"][0] == "incompatible"
    assert "reinstall" in by_name["torn"][1]


@pytest.mark.parametrize(
    ("version", "words"),
    [("not a version", "needs odd>=2, found not a version"), ("é", "needs odd>=2, whose metadata cannot be read")],
)
def test_a_requirement_whose_metadata_cannot_be_read_is_a_reason(site, status, version, words):
    site.plugin("needy", requires=["odd>=2"])
    info = write_dist(site.folder, "odd", "1.0")
    (info / "METADATA").write_bytes(f"Metadata-Version: 2.1\nName: odd\nVersion: {version}\n".encode("latin-1"))
    kind, reason = status(site.registry())["needy"]
    assert kind == "incompatible"
    assert words in reason


def test_a_reinstall_is_seen_at_once(site):
    site.plugin("one", version="1.0")
    assert site.registry().plugins()[1].version == "1.0"
    shutil.rmtree(site.plugin("one", version="1.1"))
    assert len(site.registry().plugins()) == 1
    site.plugin("one", version="1.2")
    assert site.registry().plugins()[1].version == "1.2"


def test_a_requirement_that_has_been_installed_since_is_seen_by_the_next_registry(site, status):
    site.plugin("needy", requires=["late>=2"])
    assert status(site.registry())["needy"] == ("incompatible", "needs late>=2, not installed")
    write_dist(site.folder, "late", "2.0")
    assert status(site.registry())["needy"] == ("ok", "")
