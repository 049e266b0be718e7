"""`helix export`: write a run as a Hugging Face checkpoint."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["hf"]), default="hf", show_default=True, help="Hugging Face's.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of all tensors; default: the one each was imported in, float32 for a run trained from scratch.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(run: Path, form: str, out: Path, dtype: str | None, as_json: bool) -> None:
    """Write RUN's newest checkpoint (or a checkpoint folder) so that transformers' from_pretrained loads it."""
    import json

    from helix_plugin_huggingface.writing import export_run

    summary = export_run(run, out, dtype)
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    click.echo(
        f"{summary['architecture']}: {summary['tensors']} tensors, {summary['bytes']:,} bytes, step {summary['step']}"
    )
    click.echo(f"folder: {summary['folder']}")
