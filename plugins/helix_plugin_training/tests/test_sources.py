"""Sources as users have them: many files, files that change, links, odd names, several names of one file."""

import os
import resource

import numpy as np
import pytest

from helix_core.errors import DataError
from helix_plugin_training.data import Batches, find_files, load_corpus, read_documents


@pytest.fixture
def folder(tmp_path):
    """Ten different files."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.txt").write_bytes(bytes([48 + i]) * 500)
    return folder


def batches(source):
    return Batches(load_corpus(str(source), 0.2).train, batch_size=4, seq_len=32, seed=0)


def test_a_file_that_shrinks_while_it_is_trained_on_is_an_error_that_names_it(folder):
    made = batches(folder)
    made(0)
    for file in folder.iterdir():
        os.truncate(file, 10)
    with pytest.raises(DataError, match=r"data/\d\.txt has become shorter"):
        made(1)


def test_a_file_that_vanishes_is_an_error_that_names_it(folder):
    made = batches(folder)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"cannot read .*\d\.txt: No such file"):
        made(0)


def test_more_files_than_descriptors(tmp_path):
    for i in range(300):
        (tmp_path / f"{i:03d}").write_bytes(b"%03d " % i * 20)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 8, limits[1]))
    try:
        made = batches(tmp_path)
        rows = b"".join(bytes(made(step).tokens.astype(np.uint8)) for step in range(30))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len({rows[i : i + 4] for i in range(len(rows)) if rows[i : i + 3].isdigit()}) > 100  # of different files


@pytest.mark.parametrize("at", [0, 4096, 99_999])
def test_every_changed_byte_is_noticed(tmp_path, at):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 100_000)
    before = load_corpus(str(tmp_path), 0.2).fingerprint
    with open(tmp_path / "b", "r+b") as file:
        file.seek(at)
        file.write(b"!")
    assert load_corpus(str(tmp_path), 0.2).fingerprint != before


def test_a_documents_bytes_are_an_arrays(folder):
    data = read_documents(str(folder / "3.txt"))[0].data
    (folder / "3.txt").write_bytes(bytes(range(256)) + bytes(244))
    array = np.frombuffer(bytes(range(256)) + bytes(244), np.uint8)
    for key in (0, -1, 255, slice(None), slice(3, 9), slice(-5, None), slice(490, 600), slice(9, 3)):
        assert np.array_equal(data[key], array[key])
    assert np.array_equal(data, array)
    assert data.tobytes() == bytes(data) == array.tobytes()
    assert data.tolist() == array.tolist()
    assert (data.size, data.dtype, data.shape) == (500, np.uint8, (500,))
    with pytest.raises(IndexError):
        data[500]


def test_absolute_and_relative_sources_go_together(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    documents = read_documents(["stdlib", "data"])
    assert sum(d.name.endswith("data/3.txt") for d in documents) == 1
    assert all(path.is_absolute() for path in find_files("data"))


def test_names_that_are_no_text(folder):
    os.rename(os.fsencode(folder / "0.txt"), os.fsencode(folder) + b"/\xff.txt")
    corpus = load_corpus(str(folder), 0.2)
    assert len(corpus.train) + len(corpus.validation) == 10


@pytest.mark.parametrize("source", [[], "", ["stdlib", ""], "a\0b", "~nosuchuser/data", "x" * 5000, "/dev/null"])
def test_what_is_no_source_is_said_in_words(source):
    with pytest.raises(DataError, match=r"data source|cannot read"):
        find_files(source)


def test_a_file_with_several_names_is_one_document(folder, monkeypatch):
    os.link(folder / "3.txt", folder / "hard.txt")
    os.symlink(folder / "4.txt", folder / "soft.txt")
    monkeypatch.chdir(folder)
    names = [path.name for path in find_files([str(folder), ".", "../data/*.txt", "3.txt"])]
    assert names == [f"{i}.txt" for i in range(10)]


def test_copies_of_a_file_are_on_one_side(folder):
    for i in range(10):
        for copy in range(8):
            (folder / f"{copy}-of-{i}").write_bytes((folder / f"{i}.txt").read_bytes())
    corpus = load_corpus(str(folder), 0.3)
    train, held_out = ({d.data.tobytes() for d in side} for side in (corpus.train, corpus.validation))
    assert not train & held_out
    assert len(train | held_out) == 10
    assert len(corpus.train) + len(corpus.validation) == 90


def test_files_that_are_all_the_same_are_split_by_position(tmp_path):
    for i in range(3):
        (tmp_path / str(i)).write_bytes(bytes(range(100)))
    corpus = load_corpus(str(tmp_path), 0.1)
    assert [bytes(d.data) for d in (*corpus.train, *corpus.validation)] == [bytes(range(90)), bytes(range(90, 100))]


def test_links_to_folders_are_followed_and_loops_of_them_end(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "more.txt").write_bytes(b"more")
    os.symlink(elsewhere, folder / "linked")
    for name in ("up", "again"):
        os.symlink(folder, folder / name)
        os.symlink(folder, elsewhere / name)
    expected = sorted([f"{i}.txt" for i in range(10)] + ["more.txt"])
    assert sorted(path.name for path in find_files(str(folder))) == expected
    assert sorted(path.name for path in find_files(f"{folder}/**")) == expected
    assert sorted(path.name for path in find_files(f"{folder}/**/**/*.txt")) == expected
    assert [path.name for path in find_files(f"{folder}/**/m*.txt")] == ["more.txt"]
    assert [path.name for path in find_files(f"{folder}/link*/more.txt")] == ["more.txt"]


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    (folder / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the superuser may read everything
    for source in (str(folder), f"{folder}/**/*.txt"):
        with pytest.raises(DataError, match=r"cannot read folder .*closed: Permission denied"):
            find_files(source)
    assert len(find_files(f"{folder}/*.txt")) == 10


def test_a_link_to_nothing_is_named(folder):
    os.symlink(folder / "gone", folder / "lost.txt")
    for source in (str(folder), f"{folder}/*.txt"):
        with pytest.raises(DataError, match=r"lost\.txt is a link to nothing"):
            find_files(source)
    assert len(find_files(f"{folder}/[0-9].txt")) == 10


def test_hidden_files_and_runs_are_left_out(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"x")
    run = folder / "runs" / "tiny-1"
    (run / "checkpoints").mkdir(parents=True)
    (run / "recipe.toml").write_bytes(b"name = 'tiny'")
    for source in (str(folder), f"{folder}/**"):
        assert len(find_files(source)) == 10
    with pytest.raises(DataError, match="no files"):
        find_files(f"{folder}/*/*/*")
    assert [path.name for path in find_files(str(run))] == ["recipe.toml"]
    assert [path.name for path in find_files(f"{folder}/.g*/config")] == ["config"]
