"""Commands whose standard streams are closed, full or of another encoding, and who have no home and no folder."""

import os
import subprocess
import sys

import pytest

from helix_core.cli.progress import Progress
from helix_core.plugin_system.settings import load_settings
from helix_core.streams import Forgiving

HELIX = [sys.executable, "-W", "error", "-m", "helix_core.cli.main"]
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")


def shell(command, encoding="utf-8", **environ):
    """Run a shell's command line with `$HELIX`, for what only a shell can do to streams."""
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    environ = {**os.environ, "PYTHONPATH": path, "HELIX": " ".join(HELIX), **environ}
    return subprocess.run(["sh", "-c", command], capture_output=True, timeout=120, env=environ, encoding=encoding)


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_a_command_does_its_work_though_nobody_can_be_told(streams):
    done = shell(f"$HELIX describe layer mamba {streams}")
    assert (done.returncode, done.stderr) == (0, "")


@FULL
def test_output_that_cannot_be_written_is_an_error():
    done = shell("$HELIX describe layer mamba >/dev/full")
    assert (done.returncode, done.stderr) == (1, "error: cannot write standard output: No space left on device\n")
    assert shell("$HELIX describe layer mamba >/dev/full 2>/dev/full").returncode == 1


@pytest.mark.parametrize("arguments", ["describe layer no", "train no.toml", ""])
def test_errors_keep_their_exit_codes_where_they_cannot_be_said(arguments):
    assert shell(f"$HELIX {arguments} 2>&-").returncode == 2


def test_characters_that_the_output_has_not_are_escaped():
    done = shell("$HELIX describe layer s4d", encoding="latin-1", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ré" in done.stdout
    assert "\\u0394" in done.stdout  # Δ


def test_a_working_folder_that_is_gone_is_needed_by_none_but_relative_paths(tmp_path):
    start = f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && "
    done = shell(start + "$HELIX describe layer mamba && $HELIX explain backend core/reference")
    assert (done.returncode, done.stderr) == (0, "")
    # Torch is imported here and used, which must not depend on the folder either.
    assert shell(start + "$HELIX doctor").returncode == 0
    (tmp_path / "r.toml").write_text("name = 'r'\nmodel = { d_model = 8, n_layers = 1, mixer = { name = 'mamba' } }\n")
    done = shell(start + f"$HELIX train {tmp_path}/r.toml --set training.steps=1 --set data.source=x")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot find data source 'x': the working folder is gone")


def test_a_user_without_a_home_has_no_settings(monkeypatch, tmp_path):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where there is no home
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~" / ".config" / "helix").mkdir(parents=True)
    (tmp_path / "~" / ".config" / "helix" / "config.toml").write_text("strict = true")
    assert load_settings({}).strict is False


def test_a_home_that_is_closed_has_no_settings(monkeypatch, tmp_path):
    stat = os.stat

    def refuse(path, **options):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)  # the superuser may read everything
    assert load_settings({"XDG_CONFIG_HOME": str(tmp_path)}, tmp_path).strict is False


def test_settings_with_a_byte_order_mark(tmp_path):
    (tmp_path / "helix.toml").write_bytes(b"\xef\xbb\xbfstrict = true")
    assert load_settings({"XDG_CONFIG_HOME": str(tmp_path)}, tmp_path).strict is True


class Broken:
    closed = False

    def isatty(self):
        return False

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    flush = close = lambda self: self.write("")


@pytest.mark.parametrize("stream", [Broken(), None])
def test_progress_goes_on_where_it_cannot_be_shown(stream):
    assert Forgiving(stream).write("text") == 4
    with Progress(2, stream=stream and Forgiving(stream)) as progress:
        progress.say("begun")
        progress.update(2, "done")
    assert progress.done == 2
