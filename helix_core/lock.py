"""One writer at a time: a lock on a folder that the kernel releases when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import time
from pathlib import Path
from types import TracebackType

from helix_core.errors import HelixError, InUse

LOCK = ".lock"

if sys.platform == "win32":
    import msvcrt

    def _try(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # not where the text is, which others read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FolderLock:
    """Holds a folder for this process: `with FolderLock(folder, "run runs/a"): ...`.

    The lock is the kernel's, so one that a killed process left behind is free. The file says who holds it; on a file
    system without locks the file alone decides, and is stale once its process is gone from this machine.

    Raises InUse, with the holder's pid and host, if another holds it, `failure` if the folder cannot be written.
    """

    def __init__(self, folder: Path, what: str, failure: type[HelixError] = HelixError) -> None:
        self.path, self.what, self._failure = folder / LOCK, what, failure
        self._descriptor = -1

    def __enter__(self) -> FolderLock:
        try:
            while True:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
                try:
                    self._take()
                    if self.held:
                        text = f"{os.getpid()} {platform.node()}\n".encode()
                        os.ftruncate(self._descriptor, 0)
                        os.lseek(self._descriptor, 0, os.SEEK_SET)
                        os.write(self._descriptor, text)
                        return self
                except BaseException:
                    os.close(self._descriptor)
                    raise
                os.close(self._descriptor)  # its holder removed the file between our opening and locking it
        except OSError as error:
            raise self._failure(f"cannot lock {self.what}: {error.strerror or error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Removed while it is held: whoever opened the file before finds it gone and opens a new one.
        if self.held and sys.platform != "win32":
            with contextlib.suppress(OSError):  # free it is in any case
                self.path.unlink()
        os.close(self._descriptor)

    @property
    def held(self) -> bool:
        """Whether the folder still is the one that was locked, neither removed nor made anew."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path, follow_symlinks=False))
        except OSError:
            return False

    def _take(self) -> None:
        try:
            _try(self._descriptor)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                raise self._refusal(self._holder()) from error
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            pid, host = self._holder(wait=False)
            if pid and (host != platform.node() or _alive(pid)):
                refusal = self._refusal((pid, host))
                refusal.hint = f"if that process is gone, remove {self.path}"
                raise refusal from error

    def _refusal(self, holder: tuple[int, str]) -> InUse:
        pid, host = holder
        return InUse(
            f"{self.what} is being written by " + (f"process {pid} on {host}" if pid else "another process"),
            hint="wait for it, or stop it first",
        )

    def _holder(self, *, wait: bool = True) -> tuple[int, str]:
        """The pid and host in the file, (0, "") if it says none; with `wait`, one that has just locked it may yet."""
        for _ in range(10 if wait else 1):
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            pid, _, host = os.read(self._descriptor, 300).decode(errors="replace").strip().partition(" ")
            if pid.isascii() and pid.isdigit() and host:
                return int(pid), host
            time.sleep(0.02 if wait else 0)
        return 0, ""


def _alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # its file systems have locks, and signal 0 is none there
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is someone else's
    return True
