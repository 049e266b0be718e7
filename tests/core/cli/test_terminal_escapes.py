"""What strangers wrote cannot drive a terminal; a pipe gets it as it is."""

import os
import pty
import subprocess
import sys

import pytest

from helix_core.terminal import EscapingTerminal, escape

EVIL = "a\x1b[2Jb\x9b31m\x07c\rd\x7f"
SHOWN = r"a\x1b[2Jb\x9b31m\x07c\rd\x7f"


def on_a_terminal(code, *arguments):
    """What a process shows on a terminal of its own, as bytes."""
    main, side = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=side, stderr=side, stdin=side)
    os.close(side)
    shown = b""
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # Linux ends a terminal with EIO
            break
        if not data:
            break
        shown += data
    os.close(main)
    return process.wait(timeout=60), shown


def test_controls_are_escaped_and_the_rest_is_not():
    assert escape(EVIL) == SHOWN
    assert escape("line\n\ttab über 😀 العربية") == "line\n\ttab über 😀 العربية"
    assert escape("\u202eright to left") == r"\u202eright to left"


class Screen:
    encoding, errors = "utf-8", "strict"

    def __init__(self):
        self.text = ""

    def write(self, text):
        text.encode(self.encoding)
        self.text += text

    def flush(self):
        pass


def test_bytes_come_in_pieces_of_characters():
    screen = Screen()
    terminal = EscapingTerminal(screen)
    for byte in "ü\x1b😀".encode() + b"\xff\x9b\xe2\x82":
        terminal.buffer.write(bytes([byte]))
    terminal.buffer.finish()
    assert screen.text == r"ü\x1b😀\xff\x9b\xe2\x82"


def test_a_terminal_of_few_characters():
    screen = Screen()
    screen.encoding = "ascii"
    EscapingTerminal(screen).write("ü\x1b")
    assert screen.text == r"\xfc\x1b"


MAIN = "import sys; from helix_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
PRINTS = """
import sys, warnings, click
import helix_core.cli.main as m
from helix_core.cli.progress import Progress
@click.command()
def evil():
    text = sys.argv[1].encode().decode("unicode_escape")
    print("1" + text)
    print("2" + text, file=sys.stderr)
    click.echo("3" + text)
    click.echo(("4" + text).encode())
    sys.stdout.buffer.write(("5" + text).encode())
    with Progress(2) as bar:
        bar.say("6" + text)
        warnings.warn("7" + text)
    raise m.HelixError("8" + text, hint=text)
m.cli.add_command(evil)
m.BUILT_IN["evil"] = ""
m.LazyGroup.get_command = lambda self, ctx, name: evil
sys.exit(m.main(["evil"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs pty")
def test_everything_that_is_printed_goes_through_it():
    code, shown = on_a_terminal(PRINTS, EVIL.encode("unicode_escape").decode())
    assert code == 1
    for number in "12345678":
        assert f"{number}{SHOWN}".encode() in shown, number
    for harm in (b"\x1b[2J", b"\xc2\x9b", b"\x07", b"\x7f", b"c\rd"):
        assert harm not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs pty")
def test_names_in_errors(tmp_path):
    evil = tmp_path / EVIL
    code, shown = on_a_terminal(MAIN, "eval", str(evil))
    assert code == 2
    assert SHOWN.encode() in shown
    assert b"\x1b" not in shown
    piped = subprocess.run([sys.executable, "-c", MAIN, "eval", evil], capture_output=True, timeout=60)
    assert EVIL.encode() in piped.stderr
