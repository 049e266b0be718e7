"""`helix new`: write a plugin to start from."""

from __future__ import annotations

from pathlib import Path

import click

from helix_testing.scaffold import KINDS


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to.  [default: helix-plugin-NAME]")
@click.option("--op", default="rms_norm", show_default=True, help="The op that a kernel implements.")
def command(kind: str, name: str, out: Path | None, op: str) -> None:
    """Write an installable plugin with one component and its own passing tests.

    KIND is what it provides; NAME is how users will ask for it.
    """
    from helix_testing.scaffold import write_plugin

    folder = out or Path(f"helix-plugin-{name}")
    for path in write_plugin(kind, name, folder, op=op):
        click.echo(f"wrote {path}")
    click.echo(f"\nnext:\n  pip install -e '{folder}[test]'\n  pytest {folder}\n  helix explain {kind} {name}")
