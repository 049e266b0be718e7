"""`helix distill`: a run whose long filters are recurrences, so that decoding takes constant time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from helix_plugin_lm.runs.load import LoadedRun
    from helix_plugin_training.data.corpus import Document
    from helix_plugin_training.recipes import Recipe


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--modes", default=16, show_default=True, type=click.IntRange(min=1), help="Damped waves of a filter.")
@click.option("--runs", default="runs", show_default=True, type=click.Path(path_type=Path), help="Where it is written.")
@click.option("--data", "source", help="Compare on a file, folder or glob; default: the run's held-out files.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Compare on about this many bytes only.")
@click.option("--backend", default="auto", show_default=True, help="Backend to compare on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    run: Path, modes: int, runs: Path, source: str | None, max_bytes: int | None, backend: str, as_json: bool
) -> None:
    """Fit the long filters of RUN's Hyena layers by recurrences and write a run with the mixer `hyena_recurrent`.

    RUN is a run folder, of which the newest checkpoint is taken, or a checkpoint folder. Every tool works on what is
    written as on an imported run: generate, eval, and fine-tuning with training.init. Prints the filters' relative
    errors and the bits per byte of both models on held-out files. JSON: run, modes, error_median, error_max,
    bits_per_byte, bits_per_byte_distilled and bytes; the last three are null for a run that learned a task.
    """
    from helix_core.cli.listing import print_json
    from helix_core.cli.progress import Progress
    from helix_plugin_hyena.distill import distill_model, filter_count
    from helix_plugin_lm.runs import RunFolder
    from helix_plugin_lm.runs.checkpoint import load_checkpoint, save_checkpoint
    from helix_plugin_lm.runs.load import load_run
    from helix_plugin_training.recipes import dump_recipe, load_recipe

    folder, path = RunFolder.locate(run)
    recipe = load_recipe(folder.recipe_file)
    checkpoint = load_checkpoint(path)
    total = filter_count(recipe.model)
    with Progress(max(total, 1), label="fitting") as bar:
        model, params, errors = distill_model(
            recipe.model, checkpoint.params, modes, lambda: bar.update(bar.done + 1, "filters")
        )
    made = RunFolder.create(runs, f"{recipe.name}-distilled")
    save_checkpoint(made.checkpoints, checkpoint.step, params, {}, checkpoint.metadata)
    # Last, since a folder that has a recipe is taken for a run, and one without a checkpoint for one to begin anew.
    made.write_recipe(dump_recipe(recipe.model_copy(update={"model": model, "name": f"{recipe.name}-distilled"})))

    import numpy as np

    every = np.concatenate(list(errors.values()))
    before = after = size = None
    if source or recipe.data.generator is None:
        documents = _documents(recipe, source, max_bytes)
        size = sum(map(len, documents))
        before, after = (_bits(load_run(path, backend=backend), documents) for path in (run, made.path))
    if as_json:
        facts = {"run": str(made.path), "modes": modes, "error_median": float(np.median(every))}
        facts |= {"error_max": float(every.max()), "bits_per_byte": before, "bits_per_byte_distilled": after}
        print_json({**facts, "bytes": size})
        return
    click.echo(
        f"{total} filters, {modes} modes each: relative error {np.median(every):.2g} (median), {every.max():.2g}"
    )
    for block, found in errors.items():
        click.echo(f"  block {block}: {np.median(found):.2g} (median), {found.max():.2g} (largest)")
    if before is not None and after is not None:
        click.echo(f"{before:.4f} bits/byte before, {after:.4f} after, on {size:,} bytes")
    click.echo(f"run folder: {made.path}")


def _documents(recipe: Recipe, source: str | None, max_bytes: int | None) -> list[Document]:
    """What to compare on: whole files until `max_bytes` are reached, at least one."""
    from helix_plugin_training.data import load_corpus, read_documents

    found = list(
        read_documents(source) if source else load_corpus(recipe.data.source, recipe.data.validation).validation
    )
    taken: list[Document] = []
    total = 0
    for document in found:
        if max_bytes is None or not taken or total + len(document) <= max_bytes:
            taken.append(document)
            total += len(document)
    return taken


def _bits(loaded: LoadedRun, documents: list[Document]) -> float:
    from helix_plugin_training import evaluate

    return evaluate(loaded.model, loaded.backend, loaded.F, loaded.params, documents).bits_per_byte
