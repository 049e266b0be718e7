"""torch's OpenMP threads do not spin beside ours, and the user's own setting stands."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import helix_core, json, os
helix_core.create("backend", "cpu")
print(json.dumps({k: os.environ.get(k) for k in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": None}),
        ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": None}),
    ],
)
def test_the_spin_count(given, expected):
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", CODE], env=clean | given, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == expected
