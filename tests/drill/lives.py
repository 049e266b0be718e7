"""Processes that carry out `helix` commands and are killed, starved of disk or left alone.

They are forked from one process that has done it all once, so a life takes less than a second.
"""

import contextlib
import errno
import io
import os
import platform
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass


@dataclass
class Life:
    """A process that was started; `output` is all it printed, once `wait` has returned."""

    pid: int
    pipe: int
    output: str = ""

    def wait(self, seconds=300):
        """Its exit code, or minus the signal that ended it."""
        end = time.monotonic() + seconds
        os.set_blocking(self.pipe, False)
        chunks = []
        while True:
            try:
                while data := os.read(self.pipe, 65536):
                    chunks.append(data)
            except BlockingIOError:
                pass
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"process {self.pid} hangs; it printed: {b''.join(chunks).decode()}")
            time.sleep(0.005)
        while True:
            try:
                data = os.read(self.pipe, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            chunks.append(data)
        os.close(self.pipe)
        self.output = b"".join(chunks).decode(errors="replace")
        return os.waitstatus_to_exitcode(status)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def until(condition, seconds=60):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.001)


def start(work, *, before=None):
    """Fork a process that calls `before()` and then `work()`, whose result is its exit code."""
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(write)
        return Life(pid, read)
    os.close(read)
    os.dup2(write, 1)
    os.dup2(write, 2)
    # Not the parent's, which may know its own to be files.
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    code = 70
    try:
        if before:
            before()
        code = work()
    except BaseException:  # a forked process must not return into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def helix(*arguments, before=None):
    """Start a `helix` command."""
    from helix_core.cli.main import main

    return start(lambda: main([str(argument) for argument in arguments]), before=before)


def warm_up(*arguments):
    """Carry out a command in this process, which imports everything and compiles kernels where they are not yet."""
    from helix_core.cli.main import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(list(arguments))
    if code:
        raise RuntimeError(f"helix {arguments} ended with {code}: {said.getvalue()}")


def any_event(event, arguments):
    return event.startswith(("open", "os.", "shutil."))


def takes_room(event, arguments):
    """Whether a file-system event is one that a full disk refuses."""
    return event in ("os.mkdir", "os.rename") or (event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR)))


def at_event(folder, number, do, which=any_event):
    """What installs a hook that calls `do()` at the given file-system event, and all later ones, below a folder."""
    place = str(folder)

    def install():
        left = number

        def hook(event, arguments):
            nonlocal left
            if which(event, arguments) and any(place in str(argument) for argument in arguments):
                left -= 1
                if left <= 0:
                    do()

        sys.addaudithook(hook)

    return install


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def disk_is_full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def small_files(size):
    """What lets no file grow beyond `size` bytes."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def count_events(folder, file):
    """What counts the file-system events below a folder, and keeps the number so far in a file elsewhere."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    number = 0

    def count():
        nonlocal number
        number += 1
        os.pwrite(descriptor, str(number).encode(), 0)

    return at_event(folder, 1, count)


HOST = platform.node()
