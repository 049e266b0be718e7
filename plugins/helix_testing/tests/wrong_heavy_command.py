"""A command whose help waits for a framework."""

import click
import numpy as np


@click.command()
@click.argument("file")
def heavy(file):
    """Print the size of FILE."""
    click.echo(str(np.fromfile(file, np.uint8).size))
