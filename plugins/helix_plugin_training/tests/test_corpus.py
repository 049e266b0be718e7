"""Data sources, the split by file, and batches as a function of seed and step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_core.errors import DataError
from helix_plugin_lm.tokenizers import SEPARATOR
from helix_plugin_training.data import Batches, Document, find_files, load_corpus, read_documents


@pytest.fixture
def folder(tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02d}.txt").write_bytes(bytes([65 + i % 26]) * (i + 1))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "more.md").write_bytes(b"# more")
    (tmp_path / ".hidden").write_bytes(b"secret")
    (tmp_path / "empty.txt").write_bytes(b"")
    return tmp_path


def test_a_folder_means_all_visible_files_below_it(folder):
    names = {path.name for path in find_files(str(folder))}
    assert "more.md" in names
    assert "00.txt" in names
    assert ".hidden" not in names


def test_globs_files_and_lists(folder):
    assert [p.name for p in find_files(str(folder / "0*.txt"))] == [f"{i:02d}.txt" for i in range(10)]
    assert [p.name for p in find_files([str(folder / "03.txt"), str(folder / "deep")])] == [
        "03.txt",
        "more.md",
    ]


def test_the_standard_library_is_real_text_without_its_tests():
    files = find_files("stdlib")
    assert len(files) > 300
    assert not any("test" in path.parts or "site-packages" in path.parts for path in files)
    assert sum(path.stat().st_size for path in files) > 5_000_000


def test_every_document_is_on_one_side_of_the_split(folder):
    corpus = load_corpus(str(folder), 0.25)
    train, held_out = ({d.name for d in side} for side in (corpus.train, corpus.validation))
    assert not train & held_out
    assert len(train | held_out) == 41  # the empty file is left out
    assert 3 <= len(held_out) <= 20
    assert sum(map(len, corpus.train)) + corpus.validation_bytes == sum(range(1, 41)) + 6


def test_the_split_does_not_depend_on_other_files(folder):
    before = {d.name for d in load_corpus(str(folder), 0.25).validation}
    (folder / "zz-new.txt").write_bytes(b"new")
    after = {d.name for d in load_corpus(str(folder), 0.25).validation}
    assert after - {"zz-new.txt"} == before


def test_a_single_file_is_split_by_position(tmp_path):
    (tmp_path / "one").write_bytes(bytes(range(100)))
    corpus = load_corpus(str(tmp_path / "one"), 0.1)
    assert bytes(corpus.train[0].data) == bytes(range(90))
    assert bytes(corpus.validation[0].data) == bytes(range(90, 100))


def test_the_fingerprint_notices_changed_files(folder):
    before = load_corpus(str(folder), 0.25).fingerprint
    assert load_corpus(str(folder), 0.25).fingerprint == before
    (folder / "05.txt").write_bytes(b"other!")
    assert load_corpus(str(folder), 0.25).fingerprint != before


@pytest.mark.parametrize("source", ["no/such/folder", "no/such/*.txt"])
def test_missing_data(source):
    with pytest.raises(DataError, match="no/such"):
        read_documents(source)


def test_empty_data(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read_documents(str(tmp_path))


def test_data_shorter_than_a_row():
    with pytest.raises(DataError, match="less than one row of 64"):
        Batches([Document("d", np.zeros(10, np.uint8))], batch_size=2, seq_len=64, seed=0)


def documents(lengths):
    rng = np.random.default_rng(7)
    return [Document(str(i), rng.integers(1, 256, n).astype(np.uint8)) for i, n in enumerate(lengths)]


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    seq_len=st.integers(1, 40),
    step=st.integers(0, 10**6),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_pieces_of_the_documents_in_a_line(lengths, seq_len, step, seed):
    docs = documents(lengths)
    line = b"".join(bytes([SEPARATOR]) + d.data.tobytes() for d in docs)
    if len(line) < seq_len + 1:
        return
    batch = Batches(docs, batch_size=3, seq_len=seq_len, seed=seed)(step)
    for tokens, targets, reset in zip(batch.tokens, batch.targets, batch.reset, strict=True):
        row = bytes([*tokens, targets[-1]])
        assert row in line
        assert row[1:] == bytes(targets.tolist())
        assert np.array_equal(reset, tokens == SEPARATOR)  # these documents contain no separator bytes


def test_batches_depend_on_seed_step_and_part_only():
    def batch(seed, step, part):
        return Batches(documents([500, 300]), batch_size=4, seq_len=32, seed=seed)(step, part).tokens

    assert np.array_equal(batch(1, 5, 0), batch(1, 5, 0))
    for other in (batch(2, 5, 0), batch(1, 6, 0), batch(1, 5, 1)):
        assert not np.array_equal(batch(1, 5, 0), other)


def test_every_position_is_drawn():
    batches = Batches(documents([20]), batch_size=50, seq_len=20, seed=0)
    assert {int(row[0]) == SEPARATOR for step in range(4) for row in batches(step).tokens} == {True}
    batches = Batches(documents([40]), batch_size=200, seq_len=8, seed=0)
    firsts = {bytes(row.tolist()) for step in range(4) for row in batches(step).tokens}
    assert len(firsts) == 41 - 8
