"""Damaged files are read or refused, and the fuzzer sees what is neither."""

import os
import signal

import fuzz
import pytest
from fuzz_readers import READERS

QUICK = 200
"""Inputs of one reader in the fast tier."""
FORGIVING = {"resumed metrics"}
"""Readers that keep what is whole of a damaged file, by design."""


@pytest.mark.timeout(900)
def test_damaged_files_are_read_or_refused():
    for needed in ("tokenizers", "pyarrow", "torch", "usearch"):
        pytest.importorskip(needed)
    for result in fuzz.fuzz(list(READERS), QUICK):
        assert not result.faults, fuzz.row(result)
        assert result.counts.total() == QUICK
        if result.reader not in FORGIVING:
            assert result.counts["refused"] > QUICK / 8, "what damages nothing tests nothing"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_damaged_files():
    results = fuzz.fuzz(list(READERS), -(-100_000 // len(READERS)), seed=1)
    print(fuzz.HEAD, *map(fuzz.row, results), fuzz.verdict(results), sep="\n")
    assert not any(result.faults for result in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_the_fuzzer_sees_what_readers_must_not_do(monkeypatch):
    """Each fault with the input that caused it; what lies behind a crash is read by another process."""
    monkeypatch.setattr(fuzz, "MOST_SECONDS", 4.0)
    monkeypatch.setattr(fuzz, "MOST_MEGABYTES", 100)
    (result,) = fuzz.fuzz(["faulty"], 5)
    assert result.counts == {"refused": 2, "faults": 3}
    raw, memory, crash = result.faults
    assert raw.startswith("input 1: KeyError: \"'a raw error'\" at ")
    assert memory == "input 2: took 120 MB"
    assert crash == f"input 3: the process ended with {-signal.SIGSEGV}"
    (result,) = fuzz.fuzz(["hanging"], 3)
    assert result.counts == {"refused": 2, "faults": 1}
    assert result.faults == ["input 1: no end after 8 s"]
    assert fuzz.verdict([result]).startswith("3 inputs to 1 readers: 1 FAULTS")
