"""`helix motifs`: the M0 motifs of files, as the option `motifs` of a mixture of experts."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("source")
@click.option("--count", default=64, show_default=True, type=click.IntRange(min=1), help="The most frequent ones only.")
@click.option("--max-length", default=8, show_default=True, type=click.IntRange(2, 32), help="Bytes of a motif.")
@click.option("--order", default=0, show_default=True, type=click.IntRange(0, 4), help="Of the chain that is chance.")
@click.option(
    "--max-bytes", default=200_000, show_default=True, type=click.IntRange(min=2), help="Of the files, from the first."
)
@click.option("--json", "as_json", is_flag=True, help="Print bytes, counts and expected counts as JSON.")
def command(source: str, count: int, max_length: int, order: int, max_bytes: int, as_json: bool) -> None:
    """Find runs of bytes in SOURCE, a file, folder or glob, that a Markov chain of --order does not explain.

    Prints a line for a recipe: with it, `mlp = { name = "moe", router = "motif", motifs = [...] }` sends the steps of a
    motif to an expert of its own. A run that is not text is a list of its bytes. JSON: a list of bytes, count,
    expected.
    """
    import numpy as np

    from helix_core.errors import DataError
    from helix_plugin_topomemory.topology import symbol_motifs
    from helix_plugin_training.data import read_documents

    pieces, total = [], 0
    for document in read_documents(source):
        pieces.append(document.data[: max_bytes - total])
        total += len(pieces[-1])
        if total >= max_bytes:
            break
    codes = np.concatenate(pieces).astype(np.int64)
    found = symbol_motifs(codes, max_length=max_length, order=order)[:count]
    if as_json:
        rows = [{"bytes": list(m.symbols), "count": m.count, "expected": m.expected} for m in found]
        click.echo(json.dumps(rows, indent=2))
        return
    if not found:
        raise DataError(
            f"{source}: no run of bytes comes back more often than chance has it in {total:,} bytes",
            hint="give more data, or a lower --order",
        )
    click.echo(f"motifs = [{', '.join(_toml(bytes(m.symbols)) for m in found)}]")


def _toml(run: bytes) -> str:
    """A basic string if the run is text, else a list of its bytes."""
    try:
        text = run.decode()
    except UnicodeDecodeError:
        return str(list(run))
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
