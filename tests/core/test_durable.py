"""Files and folders that are whole or absent, and never written through a link."""

import errno
import os

import pytest

from helix_core.durable import atomic_folder, clear_leftovers, odd_entry, remove, write_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "1"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError()])
def test_whatever_stops_it_nothing_stays(tmp_path, error):
    def write():
        with atomic_folder(tmp_path / "a") as temporary:
            (temporary / "x").write_text("1")
            raise error

    with pytest.raises(type(error)):
        write()
    assert names(tmp_path) == []


def test_what_came_there_meanwhile_is_not_replaced(tmp_path):
    def write():
        with atomic_folder(tmp_path / "a"):
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "theirs").write_text("2")

    with pytest.raises(FileExistsError):
        write()
    assert (tmp_path / "a" / "theirs").read_text() == "2"
    assert names(tmp_path) == ["a"]


def test_a_file_is_replaced_and_a_link_is_not_followed(tmp_path):
    write_file(tmp_path / "a", b"1")
    write_file(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2"
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / f".writing-link-{os.getpid()}").symlink_to(tmp_path / "a")
    write_file(tmp_path / "link", b"3")
    assert (tmp_path / "a").read_bytes() == b"2"
    assert not (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["a", "link"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_plain_file_is_not_replaced(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(OSError, match="no plain file"):
        write_file(tmp_path / "a", b"1")
    assert names(tmp_path) == ["a"]


def test_removing_a_link_leaves_what_it_leads_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / ".writing-link").symlink_to(tmp_path / "kept")
    remove(tmp_path / "link")
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "x").read_text() == "1"
    remove(tmp_path / "kept")
    remove(tmp_path / "kept")
    assert names(tmp_path) == []


def test_a_folder_being_removed_does_not_keep_its_name(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    monkeypatch.undo()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: p.symlink_to("/etc/passwd"), "symbolic link"),
        (lambda p: p.symlink_to("/etc"), "symbolic link"),
        (lambda p: p.symlink_to("nowhere"), "symbolic link"),
        (os.mkfifo, "pipe"),
    ],
)
def test_odd_entries_are_found_at_any_depth(tmp_path, make, word):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "plain").write_text("1")
    assert odd_entry(tmp_path) is None
    make(deep / "odd")
    assert odd_entry(tmp_path) == f"a/b/odd is a {word}"
