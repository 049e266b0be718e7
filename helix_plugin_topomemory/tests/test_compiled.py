"""Compiled functions run whatever has become of their machine code on disk, and with Numba's compiler switched off."""

import os
import shutil
import subprocess
import sys

import numba
import pytest
from numba.core.caching import IndexDataCacheFile

from helix_plugin_topomemory._jit import compiled


def doubled(x):
    return x + x


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the machine code of this test is, after one process has run."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled(doubled)(3) == 6
    return tmp_path


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a bit": lambda data: data[:-400] + bytes([data[-400] ^ 1]) + data[-399:],
}


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_made_anew(folder, damage, ending):
    (path,) = folder.rglob(f"*.{ending}")
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    assert compiled(doubled)(3) == 6
    again = compiled(doubled)
    assert again(3) == 6
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_folder_that_has_gone(folder):
    function = compiled(doubled)
    shutil.rmtree(folder)
    assert function(3) == 6


def test_a_full_disk(monkeypatch):
    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_open_for_write", fail)
    assert compiled(doubled)(2.5) == 5.0


def test_numba_switched_off_for_python_code():
    """In Python the hashes of the link table would overflow."""
    code = (
        "import numpy as np\n"
        "from helix_plugin_topomemory.links import table as t\n"
        "links, row, col = t.new_table(16), np.zeros(3), np.zeros(3)\n"
        "a, b = np.array([0, 1], np.int32), np.array([1, 2], np.int32)\n"
        "print(t.observe(links, a, b, True, True, row, col, 0, 8, 3))"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "(2, 2, 2)", done.stderr[-2000:]
