"""Commands with one fault each, which the kit must find."""

import json
import sys
from pathlib import Path

import click

from helix_core.errors import DataError


def size_of(file):
    if not Path(file).is_file():
        raise DataError(f"{file} is not there")
    return Path(file).stat().st_size


def say(size, as_json):
    click.echo(json.dumps({"size": size}) if as_json else f"{size} bytes")


def options(command):
    """What all of them take."""
    command = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
    return click.argument("file")(command)


@click.command()
@options
def right(file, as_json):
    """Print the size of FILE."""
    say(size_of(file), as_json)


@click.group()
def right_group():
    """Commands on files."""


right_group.add_command(right, "size")


@click.command()
@options
def no_help(file, as_json):
    say(size_of(file), as_json)


@click.command()
@options
@click.option("--unit")
def silent_option(file, as_json, unit):
    """Print the size of FILE."""
    say(size_of(file), as_json)


@click.group()
def silent_subcommand():
    """Commands on files."""


silent_subcommand.add_command(right, "size")
silent_subcommand.add_command(no_help, "again")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("files", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def takes_anything(files, as_json):
    """Print the size of FILES."""
    say(sum(size_of(f) for f in files if not f.startswith("-")), as_json)


@click.command(add_help_option=False)
@options
def helpless(file, as_json):
    """Print the size of FILE."""
    say(size_of(file), as_json)


@click.command()
@options
def fails(file, as_json):
    """Print the size of FILE."""
    size_of(file + "x")


@click.command()
@options
def wordy_json(file, as_json):
    """Print the size of FILE."""
    click.echo("reading ...")
    say(size_of(file), as_json)


@click.command()
@options
def nan_json(file, as_json):
    """Print the size of FILE."""
    say(size_of(file) * float("nan"), as_json)


@click.command()
@options
def no_json(file, as_json):
    """Print nothing where JSON was asked for."""
    if not as_json:
        say(size_of(file), as_json)


@click.command()
@options
def forgives(file, as_json):
    """Print the size of FILE."""
    try:
        say(size_of(file), as_json)
    except DataError as error:
        click.echo(f"error: {error}", err=True)


@click.command()
@options
def exits(file, as_json):
    """Print the size of FILE."""
    try:
        say(size_of(file), as_json)
    except DataError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(3)


@click.command()
@options
def crashes(file, as_json):
    """Print the size of FILE."""
    say(Path(file).stat().st_size, as_json)


@click.command()
@options
def complains_aloud(file, as_json):
    """Print the size of FILE."""
    try:
        say(size_of(file), as_json)
    except DataError as error:
        click.echo(error.message)
        raise


@click.command()
@options
def swallows_ctrl_c(file, as_json):
    """Print the size of FILE."""
    try:
        size = size_of(file)
    except KeyboardInterrupt:
        size = 0
    say(size, as_json)


@click.command()
@options
def exits_on_ctrl_c(file, as_json):
    """Print the size of FILE."""
    try:
        say(size_of(file), as_json)
    except KeyboardInterrupt:
        sys.exit(1)


@click.command()
@options
def fails_on_ctrl_c(file, as_json):
    """Print the size of FILE."""
    try:
        say(size_of(file), as_json)
    except BaseException as error:
        raise DataError(f"it went wrong: {error}") from error
