"""One writer at a time; a lock that a dead process left behind is free."""

import errno
import os
import platform
import signal
import subprocess
import sys

import pytest

from helix_core.errors import HelixError, InUse
from helix_core.lock import LOCK, FolderLock

HOLD = """
import sys, pathlib, time
from helix_core.lock import FolderLock
with FolderLock(pathlib.Path(sys.argv[1]), "run a"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_with_the_firsts_pid_and_host(tmp_path, holder):
    with pytest.raises(InUse, match=f"run a is being written by process {holder.pid} on {platform.node()}"):
        FolderLock(tmp_path, "run a").__enter__()
    holder.communicate()
    with FolderLock(tmp_path, "run a"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_killed_holder_leaves_a_lock_that_is_free(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).read_text() == f"{holder.pid} {platform.node()}\n"
    with FolderLock(tmp_path, "run a") as lock:
        assert lock.held
        assert (tmp_path / LOCK).read_text().split()[0] == str(os.getpid())


def test_one_process_does_not_hold_it_twice(tmp_path):
    with FolderLock(tmp_path, "run a"), pytest.raises(InUse, match=f"process {os.getpid()} "):
        FolderLock(tmp_path, "run a").__enter__()


@pytest.mark.parametrize(
    ("text", "free"),
    [
        (f"{2**22 + 5} {platform.node()}\n", True),  # beyond Linux's pids
        (f"{os.getppid()} {platform.node()}\n", False),
        ("1 elsewhere\n", False),
        ("", True),
        ("nonsense\n", True),
    ],
)
def test_without_locks_of_the_file_system_the_file_decides(tmp_path, monkeypatch, text, free):
    def none(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    (tmp_path / LOCK).write_text(text)
    lock = FolderLock(tmp_path, "run a")
    if free:
        with lock:
            assert (tmp_path / LOCK).read_text() == f"{os.getpid()} {platform.node()}\n"
    else:
        with pytest.raises(InUse, match=f"process {text.split()[0]} on {text.split()[1]}") as refused:
            lock.__enter__()
        assert f"remove {tmp_path / LOCK}" in str(refused.value)


def test_a_folder_that_was_removed_or_made_anew_is_no_longer_held(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with FolderLock(folder, "run a") as lock:
        (folder / LOCK).unlink()
        folder.rmdir()
        assert not lock.held
        folder.mkdir()
        with FolderLock(folder, "run a") as other:
            assert other.held
            assert not lock.held


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(HelixError, match="cannot lock run a"):
        FolderLock(tmp_path / "run", "run a").__enter__()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(HelixError, match="No such file"):
        FolderLock(tmp_path / "absent", "run a").__enter__()
