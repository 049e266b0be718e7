"""`helix import`: make a run folder of a Hugging Face checkpoint."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("import")
@click.argument("source", metavar="DIR_OR_FILE", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The run folder to make; default: runs/ and its name.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(source: Path, out: Path | None, as_json: bool) -> None:
    """Make a run folder of a Hugging Face checkpoint, for `helix generate`, `helix eval` and fine-tuning.

    DIR_OR_FILE is a folder with config.json and weights, or a weight file beside its config.json: safetensors, whole or
    in shards, or pytorch_model.bin, of which nothing but plain tensors is read.
    """
    import json

    from helix_plugin_huggingface.reading import import_checkpoint

    summary = import_checkpoint(source, out)
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    dtypes = ", ".join(f"{count} in {code}" for code, count in summary["dtypes"].items())
    click.echo(
        f"{summary['architecture']}: {summary['parameters']:,} parameters in {summary['tensors']} tensors ({dtypes})"
    )
    click.echo(f"run folder: {summary['run']}")
