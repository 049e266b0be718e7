"""Damaged files are read or refused, and the fuzzer sees what is neither."""

import fuzz
import fuzz_readers
import pytest

QUICK = 200
"""Inputs of one reader; its worker takes seconds to start, so the fast tier has those whose files name most."""
TOGETHER = ("safetensors", "checkpoint", "recipe", "settings", "tokenizer", "memory store", "quality results")


def faults(result: fuzz.Result) -> str:
    return "\n".join(result.faults[:10])


@pytest.mark.parametrize("reader", sorted(fuzz_readers.READERS))
def test_damaged_files_are_read_or_refused(reader):
    for needed in ("tokenizers", "pyarrow", "torch") if "torch" in reader or "dataset" in reader else ("tokenizers",):
        pytest.importorskip(needed)
    result = fuzz.fuzz(reader, QUICK)
    assert sum(result.counts.values()) == QUICK
    assert not result.faults, faults(result)
    assert result.counts["refused"] > QUICK / 4, "what damages nothing tests nothing"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_damaged_files():
    each = -(-100_000 // len(fuzz_readers.READERS))
    results = [fuzz.fuzz(reader, each, seed=1) for reader in fuzz_readers.READERS]
    print(fuzz.HEAD, *map(fuzz.row, results), fuzz.verdict(results), sep="\n")
    assert not any(result.faults for result in results), "\n".join(map(faults, results))
