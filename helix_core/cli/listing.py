"""Tables for listings: aligned columns, never cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a header, one line each, each column as wide as its widest cell."""
    cells = [[str(cell).replace("\n", " ") for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(value: Any) -> None:
    """Print JSON for another program."""
    click.echo(json.dumps(value, indent=2))
