"""A process may have another default dtype or device of torch: a kernel's results are the same, bit by bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import ops_and_steps
import pytest
import torch


@pytest.fixture(scope="module")
def expected():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ops_and_steps.compute()
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "default",
    ["float64", "meta", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bfloat16", "float16"))],
)
def test_results_do_not_depend_on_defaults(default, expected, tmp_path):
    script = Path(ops_and_steps.__file__)
    done = subprocess.run(
        [sys.executable, script, default, tmp_path / "found.npz"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "found.npz") as found:
        assert set(found.files) == set(expected)
        wrong = [
            name
            for name, value in expected.items()
            if found[name].dtype != value.dtype or not np.array_equal(found[name], value, equal_nan=True)
        ]
    assert not wrong
