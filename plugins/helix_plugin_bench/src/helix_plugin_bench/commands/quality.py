"""`helix bench quality`: what layers learn, row by row."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("words", nargs=-1)
@click.option("--list", "only_list", is_flag=True, help="Print the rows and stop.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Add results to this file.")
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), help="Write the file's tables, as Markdown.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the file's results (PNG).")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of parameters and data.")
@click.option("--steps", type=click.IntRange(1), help="Instead of each row's own: for a first look, not for results.")
@click.option("--no-run", is_flag=True, help="Train nothing: only write what the file has.")
def quality(
    words: tuple[str, ...],
    only_list: bool,
    file: Path | None,
    table: Path | None,
    plot: Path | None,
    seed: int,
    steps: int | None,
    no_run: bool,
) -> None:
    """Train small models on tasks that tell them apart; WORDS select rows by parts of their names.

    Every finished row goes into --json at once, and rows that are there already, with the same seed, are kept: the
    same command goes on where it was stopped. A model whose layer is not installed is skipped with a line. Exits with
    1 if a row failed.
    """
    from dataclasses import replace

    from helix_core.durable import write_file
    from helix_core.errors import HelixError, UsageError
    from helix_plugin_bench.quality import rows, store
    from helix_plugin_bench.quality.carry_out import carry_out
    from helix_plugin_bench.quality.models import missing
    from helix_plugin_bench.quality.report import markdown, picture

    if steps is not None and file is not None:
        raise UsageError("--steps is for a first look: its results are not a row's, so they go into no file")
    if (no_run or table or plot) and file is None:
        raise UsageError("--table, --plot and --no-run read results: name their file with --json")
    chosen = rows.rows(words)
    if not chosen:
        raise UsageError(f"no row has {' or '.join(words)} in its name", hint="--list prints them all")
    known = store.read(file) if file else []
    done = {(result["row"], result["seed"]) for result in known}
    if only_list:
        for row in chosen:
            absent = missing(row.model)
            note = "  done" if (row.name, seed) in done else f"  not installed: {', '.join(absent)}" if absent else ""
            click.echo(f"{row.name}: {row.steps} steps{note}")
        return
    failed = 0
    for row in () if no_run else chosen:
        if absent := missing(row.model):
            click.echo(f"{row.name}: skipped: no layer {', '.join(absent)} is installed", err=True)
            continue
        if (row.name, seed) in done:
            continue
        try:
            result = carry_out(row if steps is None else replace(row, steps=steps), seed)
        except HelixError as error:
            failed += 1
            click.echo(f"{row.name}: failed: {error}", err=True)
            continue
        known = store.add(file, result) if file else [*known, result]
    if table:
        write_file(table, (markdown(known) + "\n").encode())
    if plot:
        write_file(plot, picture(known))
    click.echo(markdown([r for r in known if not words or any(word in r["row"] for word in words)]))
    if failed:
        raise HelixError(f"{failed} of {len(chosen)} rows failed; what they said stands above")
