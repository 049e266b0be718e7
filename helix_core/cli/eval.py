"""`helix eval`: bits per byte of a trained run on any files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from helix_core.data.corpus import Document
    from helix_core.inference import LoadedRun


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", "source", required=True, help="A file, folder or glob, or 'stdlib'.")
@click.option("--backend", default="auto", show_default=True, help="Backend to compute on.")
@click.option("--memory", help="Also with this memory, at equal parameters: `helix plugins` lists memories.")
@click.option("--memory-bytes", default=50_000, show_default=True, type=click.IntRange(0), help="Training bytes in it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, source: str, backend: str, memory: str | None, memory_bytes: int, as_json: bool) -> None:
    """Bits per byte of RUN's newest checkpoint (or of a checkpoint folder) on files, beside gzip -9 on the same.

    Every file is coded on its own from its first byte to its last. A memory is filled from the start of the run's
    training data and goes on learning from the files as they are coded.
    """
    import json

    from helix_core.data import read_documents
    from helix_core.inference import load_run
    from helix_core.training import evaluate, gzip_bits_per_byte
    from helix_core.training.progress import Progress

    documents = read_documents(source)
    loaded = load_run(run, backend=backend)
    remembered = _with_memory(memory, memory_bytes, loaded, documents) if memory else None
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
    if remembered is not None:
        result["memory"] = remembered
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(
            f"{found.bits_per_byte:.4f} bits/byte on {found.bytes:,} bytes in {found.documents} files "
            f"(gzip -9: {result['gzip_bits_per_byte']:.4f}), step {loaded.step}, backend {loaded.backend.name}"
        )
        if remembered is not None:
            click.echo(
                f"{remembered['bits_per_byte']:.4f} bits/byte with memory {remembered['name']} of "
                f"{remembered['items']:,} items ({remembered['share']:.0%} of the probability from it)"
            )


def _with_memory(name: str, limit: int, loaded: LoadedRun, documents: list[Document]) -> dict[str, Any]:
    """The same evaluation with a memory beside the model."""
    from helix_core.data import load_corpus
    from helix_core.memory.language import evaluate_with_memory, fill
    from helix_core.plugin_system import create
    from helix_core.training.progress import Progress

    memory = create("memory", name, dim=loaded.model.config.d_model)
    model = (loaded.model, loaded.backend, loaded.F, loaded.params)
    if limit:
        recipe = loaded.recipe
        fill(memory, *model, load_corpus(recipe.data.source, recipe.data.validation).train, limit)
    with Progress(sum(map(len, documents)), label="evaluating with memory") as progress:
        found = evaluate_with_memory(
            memory, *model, documents, progress=lambda count: progress.update(progress.done + count, "bytes")
        )
    return {
        "name": name,
        "bits_per_byte": found.bits_per_byte,
        "model_bits_per_byte": found.model_bits_per_byte,
        "share": found.share,
        "items": len(memory),
    }
