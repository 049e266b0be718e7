"""The command kit: quick help, options that are known, errors and Ctrl-C with their exit codes, JSON that parses."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, ClassVar

import click
import pytest

from helix_core.cli.main import main
from helix_core.errors import HelixError
from helix_core.plugin_system import create, select

HEAVY = {"jax", "matplotlib", "mlx", "networkx", "numba", "numpy", "pandas", "pyarrow", "pyopencl", "scipy", "sklearn"}
HEAVY |= {"tensorflow", "torch", "transformers", "triton", "wgpu"}
INTERRUPTS = 6
_HELP = """
import contextlib, io, json, sys
from helix_core.cli.main import main
heavy, paths = map(json.loads, sys.argv[1:])
for path in paths:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = main([*path, "--help"])
    assert code == 0 and "Usage:" in text.getvalue(), f"helix {' '.join(path)} --help exits with {code}"
print(json.dumps(sorted(set(heavy) & set(sys.modules))))
"""


class BaseCommandTests:
    """Set `command` to its name and `arguments` to those of a quick run that succeeds.

    refused   arguments of runs that must fail with an error of the command's own: a file that is not there, ...

    Every run begins in a working folder with nothing in it but what `prepare` puts there.
    """

    command: ClassVar[str] = ""
    arguments: ClassVar[Sequence[str]] = ()
    refused: ClassVar[Sequence[Sequence[str]]] = ()

    @classmethod
    def helix_parametrize(cls, metafunc: pytest.Metafunc) -> None:
        if "wrong" in metafunc.fixturenames:
            metafunc.parametrize("wrong", cls.refused, ids=" ".join)

    def prepare(self, folder: Path) -> None:
        """Write the files that a run needs."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
        """A function that empties the working folder, prepares it and goes there."""
        folder = tmp_path / "here"

        def move() -> Path:
            monkeypatch.chdir(tmp_path)
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
            self.prepare(folder)
            monkeypatch.chdir(folder)
            return folder

        return move

    # What it says about itself.

    def test_it_says_what_it_does(self) -> None:
        """In a line of `helix --help`, and in the help of every command and option."""
        assert select("command", self.command).chosen.descriptor.summary.strip(), "its descriptor has no summary"
        for path, command in _commands(self.command):
            assert (command.help or "").strip(), f"`{' '.join(path)}` has no help"
            for option in command.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert option.help, f"`{' '.join(path)} {option.opts[0]}` has no help"

    def test_help_works_and_imports_nothing_heavy(self) -> None:
        """In a process of its own: whoever asks for help should not wait for a framework."""
        paths = [path for path, _ in _commands(self.command)]
        command = [sys.executable, "-c", _HELP, json.dumps(sorted(HEAVY)), json.dumps(paths)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        imported = json.loads(done.stdout)
        assert not imported, f"--help imports {', '.join(imported)}: import them where they are used"

    def test_unknown_options_are_refused(self, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        for path, _ in _commands(self.command):
            code = _exit_code([*path, "--no-such-option"])
            out, err = _said(capsysbinary)
            assert code == 2, f"`{' '.join(path)} --no-such-option` exits with {code}"
            assert "--no-such-option" in err, "the message names no option"
            assert not out, "the message belongs on standard error"

    # What it does.

    def test_it_runs(self, place: Callable[[], Path], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        place()
        code = _exit_code([self.command, *self.arguments])
        assert code == 0, f"exit code {code}: {_said(capsysbinary)[1]}"

    def test_its_json_parses(self, place: Callable[[], Path], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        """If there is a flag --json, it leaves nothing but JSON on standard output, whole or a value a line."""
        leaf = self._leaf()
        if not any(isinstance(o, click.Option) and o.is_flag and "--json" in o.opts for o in leaf.params):
            pytest.skip("it offers no --json")
        place()
        arguments = [a for a in self.arguments if a != "--json"]
        code = _exit_code([self.command, *arguments, "--json"])
        out, err = _said(capsysbinary)
        assert code == 0, f"exit code {code}: {err}"
        assert _is_json(out), f"this is no JSON:\n{out}"

    def test_errors_end_as_they_say(
        self, wrong: Sequence[str], place: Callable[[], Path], capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        """A HelixError reaches the command line, which prints it and exits with its code."""
        place()
        error = self._error(wrong)
        _said(capsysbinary)
        place()
        code = _exit_code([self.command, *wrong])
        out, err = _said(capsysbinary)
        text = error.format_message() if isinstance(error, click.ClickException) else error.message
        assert code == error.exit_code, f"exit code {code}, but {type(error).__name__} has {error.exit_code}"
        assert text in err, "the message is not on standard error"
        assert text not in out, "the message is on standard output"

    def test_ctrl_c_exits_with_130(self, place: Callable[[], Path], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        """At a few moments of the run, the first and the last line of the command among them."""
        assert self._leaf().callback is not None
        code = inspect.unwrap(self._leaf().callback).__code__  # type: ignore[arg-type]
        lines = 0

        def count() -> None:
            nonlocal lines
            lines += 1

        place()
        with _each_line(code, count):
            _exit_code([self.command, *self.arguments])
        assert lines, "the run with `arguments` never reached the command"
        for moment in sorted({1 + (lines - 1) * i // (INTERRUPTS - 1) for i in range(INTERRUPTS)}):
            place()
            with _interrupted(code, moment):
                found = _exit_code([self.command, *self.arguments])
            assert found == 130, f"interrupted at line {moment} of {lines} it exits with {found}"
            _said(capsysbinary)

    def _leaf(self) -> click.Command:
        """The command that `arguments` lead to, through groups."""
        command: click.Command = create("command", self.command)
        for word in self.arguments:
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word) or command
        return command

    def _error(self, arguments: Sequence[str]) -> HelixError | click.ClickException:
        """What the command raises when it is not `helix` that runs it."""
        command: click.Command = create("command", self.command)
        try:
            command.main(args=list(arguments), prog_name=self.command, standalone_mode=False)
        except (HelixError, click.ClickException) as error:
            return error
        except SystemExit as error:
            raise AssertionError(f"it calls sys.exit({error.code!r}); raise a HelixError") from error
        except Exception as error:
            raise AssertionError(f"it raises {type(error).__name__}, which is no HelixError: {error}") from error
        raise AssertionError(f"`helix {self.command} {' '.join(arguments)}` ends well")


def _commands(name: str) -> Iterator[tuple[list[str], click.Command]]:
    """A command and its subcommands, with the words that lead to each."""

    def walk(path: list[str], command: click.Command) -> Iterator[tuple[list[str], click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for word in command.list_commands(context):
                below = command.get_command(context, word)
                assert below is not None, f"`{' '.join(path)}` lists {word!r}, which it has not"
                yield from walk([*path, word], below)

    yield from walk([name], create("command", name))


def _exit_code(arguments: Sequence[str]) -> Any:
    """How `helix` with these arguments ends."""
    try:
        return main(list(arguments))
    except SystemExit as error:
        return error.code


def _said(captured: pytest.CaptureFixture[bytes]) -> tuple[str, str]:
    """What came on standard output and on standard error; a model may say what is no text."""
    out, err = captured.readouterr()
    return out.decode(errors="replace"), err.decode(errors="replace")


def _is_json(text: str) -> bool:
    """Whether a text is one JSON value, or one a line; Infinity and NaN are none."""

    def parses(part: str) -> bool:
        try:
            json.loads(part, parse_constant=lambda constant: json.loads(f"no JSON: {constant}"))
        except json.JSONDecodeError:
            return False
        return True

    return parses(text) or (bool(text.strip()) and all(map(parses, text.splitlines())))


@contextmanager
def _each_line(code: CodeType, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` before each line of a function."""

    def within(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            act()
        return within

    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: within if frame.f_code is code else None)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _interrupted(code: CodeType, moment: int) -> Iterator[None]:
    """Press Ctrl-C before the line of a function that is carried out as number `moment`."""
    left = moment

    def press() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGINT)

    # A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _each_line(code, press):
            yield
    finally:
        signal.signal(signal.SIGINT, before)
