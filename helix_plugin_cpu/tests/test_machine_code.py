"""Machine code on disk saves time and nothing else: kernels run, and are right, whatever has become of it."""

import errno
import os
import pickle
import shutil
import subprocess
import sys

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from helix_core.events import subscribe
from helix_plugin_cpu.kernels._jit import Kernel
from helix_plugin_cpu.kernels._memory import put


def write_seven(_counter, _jobs, _scratch, at):
    put(at, 7.0)


def run():
    """What a fresh process would do: (the kernel's result, names of the events of the cache and the compiler)."""
    target, events = np.zeros(1, np.float32), []
    with subscribe(lambda event: events.append(event.name)):
        Kernel(write_seven)(0, 1, 0, target.ctypes.data)
    return target[0], events


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the machine code of this test is."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def files(folder, ending):
    return [path for path in folder.rglob(f"*{ending}") if path.is_file()]


def flipped(data):
    """One bit of another value, in the middle: of the machine code in a data file."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 3],
    "other bytes": lambda data: b"\x93NUMPY" + data[::-1],
    "another object": lambda data: pickle.dumps({"a": 1}),
    "a bit": flipped,
}


def test_it_is_kept():
    assert run() == (7.0, ["compiling", "compiled"])
    assert run() == (7.0, [])


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_made_anew(folder, damage, ending):
    run()
    (path,) = files(folder, ending)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    value, events = run()
    assert value == 7.0
    assert events[-2:] == ["compiling", "compiled"] or (damage == "a bit" and ending == ".nbi")
    assert run() == (7.0, [])


def test_a_folder_that_has_gone(folder):
    kernel, target = Kernel(write_seven), np.zeros(1, np.float32)
    shutil.rmtree(folder)
    kernel(0, 1, 0, target.ctypes.data)
    assert target[0] == 7.0


def test_a_folder_that_is_none(folder):
    run()
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert run()[0] == 7.0


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_takes_nothing(folder, monkeypatch, number, damaged):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    if damaged:
        run()
        for path in [*files(folder, ".nbi"), *files(folder, ".nbc")]:
            path.write_bytes(b"")
    monkeypatch.setattr(IndexDataCacheFile, "_open_for_write", fail)
    assert run() == (7.0, ["cache_damaged"] * damaged + ["compiling", "compiled", "cache_unused"])


def test_numba_switched_off_for_python_code(tmp_path):
    """NUMBA_DISABLE_JIT is for one's own functions: these have no meaning in Python, and are compiled."""
    code = (
        "import torch, helix_core\n"
        "x = torch.ones(1, 3, 16)\n"
        "F = helix_core.create('backend', 'cpu').bind()\n"
        "print(F.linear_scan(0.5 * x, x)[0][0, :, 0].tolist())"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "[1.0, 1.5, 1.75]", done.stderr[-2000:]
