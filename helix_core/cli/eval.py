"""`helix eval`: bits per byte of a trained run on any files."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", "source", required=True, help="A file, folder or glob, or 'stdlib'.")
@click.option("--backend", default="auto", show_default=True, help="Backend to compute on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, source: str, backend: str, as_json: bool) -> None:
    """Bits per byte of RUN's newest checkpoint (or of a checkpoint folder) on files, beside gzip -9 on the same.

    Every file is coded on its own from its first byte to its last.
    """
    import json

    from helix_core.data import read_documents
    from helix_core.inference import load_run
    from helix_core.training import evaluate, gzip_bits_per_byte
    from helix_core.training.progress import Progress

    documents = read_documents(source)
    loaded = load_run(run, backend=backend)
    with Progress(sum(map(len, documents)), label="evaluating") as progress:
        found = evaluate(
            loaded.model,
            loaded.backend,
            loaded.F,
            loaded.params,
            documents,
            progress=lambda count: progress.update(progress.done + count, "bytes"),
        )
    result = {
        "bits_per_byte": found.bits_per_byte,
        "gzip_bits_per_byte": gzip_bits_per_byte(documents),
        "bytes": found.bytes,
        "documents": found.documents,
        "step": loaded.step,
        "backend": loaded.backend.name,
    }
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(
            f"{found.bits_per_byte:.4f} bits/byte on {found.bytes:,} bytes in {found.documents} files "
            f"(gzip -9: {result['gzip_bits_per_byte']:.4f}), step {loaded.step}, backend {loaded.backend.name}"
        )
