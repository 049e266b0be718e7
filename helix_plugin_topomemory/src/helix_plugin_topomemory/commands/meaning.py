"""`helix meaning`: induce links from raw bytes and report what they are worth."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the report and the links.")
@click.option("--json", "as_json", is_flag=True, help="Print the report's summary as JSON.")
def command(recipe: Path, out: Path, as_json: bool) -> None:
    """Carry out the meaning induction of RECIPE, a TOML file; leave report.json, report.html and the links in --out."""
    from helix_plugin_topomemory.meaning.induction import induce
    from helix_plugin_topomemory.meaning.recipe import load_meaning_recipe
    from helix_plugin_topomemory.meaning.report import write_report

    result = induce(load_meaning_recipe(recipe), say=lambda text: click.echo(text, err=True))
    summary = write_report(result, out)["summary"]
    if as_json:
        click.echo(json.dumps(summary, indent=2))
    else:
        click.echo(
            f"held out: {summary['bits_per_byte_with_memory']:.3f} bits/byte from links, "
            f"{summary['bits_per_byte_without_memory']:.3f} without; hit rate {summary['hit_rate']:.1%}"
        )
        click.echo(f"report: {out / 'report.html'}")
