"""The table of backends is what the kit reported, and what did not run is never shown as passed."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/backend_matrix.py"


@pytest.fixture(scope="module")
def matrix():
    spec = importlib.util.spec_from_file_location("backend_matrix", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_results(matrix):
    results = json.loads(matrix.RESULTS.read_text())
    assert matrix.BEGIN + matrix.table(results) + matrix.END in matrix.PAGE.read_text()


def test_what_did_not_run_is_not_shown_as_passed(matrix):
    levels = dict.fromkeys(matrix.LEVELS, "not run")
    shown = matrix.table({"far": {"levels": levels | {"basic": "failed"}, "where": None}})
    assert "passed" not in shown.splitlines()[-1]
    assert shown.count("not run here") == len(levels) - 1
    assert "**failed**" in shown
