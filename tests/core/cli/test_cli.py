"""The command line as a whole: help, errors, exit codes."""

import os
import signal
import subprocess
import sys

import pytest

import helix_core
from helix_core.cli.main import main
from helix_core.plugin_system import use_registry

COMMANDS = """
import click, sys, warnings
import helix_core

@click.command()
@click.option("--size", type=int)
def hello(size):
    '''Say hello.'''
    click.echo(f"hello {size}")
    return 5

@click.command()
def fails():
    raise helix_core.TrainingError("loss is nan", hint="lower lr")

@click.command()
def crashes():
    raise ZeroDivisionError("by zero")

@click.command()
def stops():
    raise KeyboardInterrupt

@click.command()
def warns():
    warnings.warn("odd", helix_core.HelixWarning)

def not_click():
    pass
"""
NAMES = ("hello", "fails", "crashes", "stops", "warns", "not_click", "describe")


@pytest.fixture
def commands(site):
    calls = ", ".join(
        f"CommandDescriptor(name='{name}', target='fake_commands:{name}', summary='About {name}.')" for name in NAMES
    )
    source = f"@hookimpl\ndef helix_commands():\n    return [{calls}]\n"
    site.plugin("acme", source, fake_commands=COMMANDS + "describe = hello\n")
    with use_registry(site.registry()):
        yield site


def helix(site, *arguments, **options):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site.folder), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "helix_core.cli.main", *arguments]
    # A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
    finally:
        signal.signal(signal.SIGINT, before)


def test_help_lists_every_command_with_its_summary(commands, capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "About hello." in out
    for name in ("plugins", "doctor", "explain", "describe"):
        assert f"\n  {name} " in out


def test_help_works_where_the_settings_do_not(site, tmp_path):
    (tmp_path / "helix.toml").write_text("[plugin]\n")
    process = helix(site, "--help", cwd=tmp_path)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "\n  plugins " in out
    assert "did you mean 'plugins'" in error
    process = helix(site, "plugins", cwd=tmp_path)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error == f"error: {tmp_path}/helix.toml: unknown setting 'plugin'; did you mean 'plugins'?\n"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert helix_core.__version__ in capsys.readouterr().out


def test_a_plugins_command_runs_and_its_return_value_is_no_exit_code(commands, capsys):
    assert main(["hello", "--size", "3"]) == 0
    assert capsys.readouterr().out == "hello 3\n"


def test_a_plugin_cannot_shadow_a_built_in_command(commands, capsys):
    assert main(["describe"]) == 2
    assert "Missing argument" in capsys.readouterr().err
    assert main(["acme/describe"]) == 0
    assert capsys.readouterr().out == "hello None\n"
    main(["doctor"])
    assert "command 'describe' of plugin acme must be typed as 'acme/describe'" in capsys.readouterr().out


def test_two_plugins_with_one_command_name(commands, capsys):
    descriptor = "CommandDescriptor(name='hello', target='a:b', summary='')"
    commands.plugin("other", f"@hookimpl\ndef helix_commands():\n    return [{descriptor}]\n")
    with use_registry(commands.registry()):
        assert main(["hello"]) == 2
        assert "-> ask for acme/hello or other/hello" in capsys.readouterr().err
        assert main(["acme/hello"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fails"], 1, "error: loss is nan\n  -> lower lr\n"),
        (
            ["crashes"],
            1,
            "error: ZeroDivisionError: by zero\n  -> run with HELIX_DEBUG=1 for the traceback\n",
        ),
        (["stops"], 130, "error: stopped\n"),
        (["not_click"], 1, "error: command 'acme/not_click' is not a click command\n"),
        (
            ["explian"],
            2,
            "error: no command 'explian'; did you mean 'explain'?\n  -> `helix --help` lists them\n",
        ),
        (["hello", "--sise", "3"], 2, "error: No such option"),
        (["hello", "--size", "big"], 2, "error: Invalid value for '--size': 'big' is not a valid integer.\n"),
    ],
)
def test_errors_are_messages_with_exit_codes(commands, capsys, monkeypatch, arguments, code, message):
    monkeypatch.delenv("HELIX_DEBUG", raising=False)
    assert main(arguments) == code
    assert capsys.readouterr().err.lstrip("\n").startswith(message)


def test_a_usage_error_says_where_the_help_is(commands, capsys):
    assert main(["hello", "--sise", "3"]) == 2
    error = capsys.readouterr().err
    assert "--size" in error
    assert error.endswith("\n  -> see `helix hello --help`\n")
    assert main(["--loud"]) == 2
    assert capsys.readouterr().err.endswith("\n  -> see `helix --help`\n")


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(commands, capsys):
    assert main(["warns"]) == 0
    assert capsys.readouterr().err == "warning: odd\n"


def test_debug_shows_the_traceback(commands, monkeypatch):
    monkeypatch.setenv("HELIX_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["crashes"])


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(site):
    process = helix(site, "plugins")
    process.stdout.close()
    with process:
        error = process.stderr.read()
    assert error == ""
    assert process.returncode == 1


def test_ctrl_c(site):
    site.plugin("acme", "import fake_slow\nfake_slow.wait()", fake_slow=SLOW)
    process = helix(site, "plugins")
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip() == "error: stopped"


SLOW = """
import time

def wait():
    print("waiting", flush=True)
    time.sleep(60)
"""


def test_core_alone_says_what_a_missing_command_comes_with(commands, capsys):
    """Core trains nothing: that is a distribution of its own."""
    assert main(["train", "recipe.toml"]) == 2
    error = capsys.readouterr().err
    assert "command 'train' is not installed" in error
    assert "pip install helix-plugin-training" in error
