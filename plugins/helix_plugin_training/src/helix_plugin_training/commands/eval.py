"""`helix eval`: bits per byte of a trained run on any files, or accuracy of one that learned a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helix_core.errors import UsageError

if TYPE_CHECKING:
    from helix_plugin_lm.runs.load import LoadedRun
    from helix_plugin_training.data.corpus import Document


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", "source", help="A file, folder or glob, or 'stdlib'.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="data.A=B",
    help="Without --data: another task than the run's, such as data.generator.context=512; repeatable.",
)
@click.option("--backend", default="auto", show_default=True, help="Backend to compute on.")
@click.option("--memory", help="Also with this memory, at equal parameters: `helix plugins` lists memories.")
@click.option("--memory-bytes", default=50_000, show_default=True, type=click.IntRange(0), help="Training bytes in it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    run: Path,
    source: str | None,
    overrides: tuple[str, ...],
    backend: str,
    memory: str | None,
    memory_bytes: int,
    as_json: bool,
) -> None:
    """Bits per byte of RUN's newest checkpoint (or of a checkpoint folder) on files, beside gzip -9 on the same.

    Every file is coded on its own from its first byte to its last. A memory is filled from the start of the run's
    training data and goes on learning from the files as they are coded. A run that learned a generator's task answers
    the task's held-out samples.
    """
    import json

    if source is None:
        if memory:
            raise UsageError("--memory goes with --data", hint="a file, folder or glob, or 'stdlib'")
        _task(run, overrides, backend, as_json)
        return
    if overrides:
        raise UsageError("--set changes the run's task; give either that or --data")

    from helix_core.cli.progress import Progress
    from helix_plugin_lm.runs.load import load_run
    from helix_plugin_lm.tokenizers import BYTES
    from helix_plugin_training import evaluate, gzip_bits_per_byte
    from helix_plugin_training.data import read_documents

    documents = read_documents(source)
    loaded = load_run(run, backend=backend)
    if loaded.tokenizer is None:
        raise UsageError("the tokens of this model are no text", hint=f"`helix eval {run}` without --data")
    if memory and loaded.tokenizer is not BYTES:
        raise UsageError("--memory takes models whose tokens are bytes")
    remembered = _with_memory(run, memory, memory_bytes, loaded, documents) if memory else None
    with Progress(sum(map(len, documents)), label="evaluating") as progress:
        found = evaluate(
            loaded.model,
            loaded.backend,
            loaded.F,
            loaded.params,
            documents,
            tokenizer=loaded.tokenizer,
            progress=lambda count: progress.update(progress.done + count, "bytes"),
        )
    result = {
        "bits_per_byte": found.bits_per_byte,
        "gzip_bits_per_byte": gzip_bits_per_byte(documents),
        "bytes": found.bytes,
        "documents": found.documents,
        **({} if loaded.tokenizer is BYTES else {"tokens": found.tokens, "bits_per_token": found.bits_per_token}),
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


def _task(run: Path, overrides: tuple[str, ...], backend: str, as_json: bool) -> None:
    import json

    from helix_core.cli.progress import Progress
    from helix_plugin_lm.runs import RunFolder
    from helix_plugin_lm.runs.load import load_run
    from helix_plugin_training import evaluate_task, load_data
    from helix_plugin_training.data import Task
    from helix_plugin_training.recipes import load_recipe

    folder, _ = RunFolder.find(run)
    if any(not item.strip().startswith("data.") for item in overrides):
        raise UsageError("--set changes data.* only; the model is as it was trained")
    recipe = load_recipe(folder.recipe_file, overrides)
    if recipe.data.generator is None:
        raise UsageError("the run learned from files: give --data", hint="a file, folder or glob, or 'stdlib'")
    task = load_data(recipe)
    assert isinstance(task, Task)  # the recipe has a generator
    if task.generator.vocab_size > recipe.model.vocab_size:
        raise UsageError(
            f"the task has {task.generator.vocab_size} different tokens, the model knows {recipe.model.vocab_size}"
        )
    loaded = load_run(run, backend=backend)
    with Progress(task.validation, label="evaluating") as progress:
        found = evaluate_task(
            loaded.model,
            loaded.backend,
            loaded.F,
            loaded.params,
            task,
            progress=lambda count: progress.update(progress.done + count, "samples"),
        )
    result = {
        "accuracy": found.accuracy,
        "solved": found.solved_share,
        "bits_per_token": found.bits_per_token,
        "tokens": found.tokens,
        "samples": found.samples,
        "step": loaded.step,
        "backend": loaded.backend.name,
    }
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(
            f"accuracy {found.accuracy:.4f} at {found.tokens:,} scored tokens, {found.solved_share:.1%} of "
            f"{found.samples} samples right throughout, {found.bits_per_token:.4f} bits/token, step {loaded.step}, "
            f"backend {loaded.backend.name}"
        )


def _with_memory(run: Path, name: str, limit: int, loaded: LoadedRun, documents: Sequence[Document]) -> dict[str, Any]:
    """The same evaluation with a memory beside the model."""
    from helix_core.cli.progress import Progress
    from helix_core.plugin_system import create
    from helix_plugin_lm.runs import RunFolder
    from helix_plugin_training.data import load_corpus
    from helix_plugin_training.evaluation.memory import evaluate_with_memory, fill
    from helix_plugin_training.recipes import load_recipe

    memory = create("memory", name, dim=loaded.model.config.d_model)
    model = (loaded.model, loaded.backend, loaded.F, loaded.params)
    if limit:
        folder, _ = RunFolder.locate(run)
        recipe = load_recipe(folder.recipe_file)
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
