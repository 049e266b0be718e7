"""`helix train`: carry out a recipe, or go on with a run."""

from __future__ import annotations

from pathlib import Path

import click

from helix_core.errors import UsageError


@click.command()
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a key of the recipe; repeatable.")
@click.option(
    "--resume",
    "resume_from",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Continue a run folder, or one of its checkpoints.",
)
@click.option("--runs", default="runs", show_default=True, type=click.Path(path_type=Path), help="Where runs go.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's summary as JSON.")
def command(
    recipe: Path | None, overrides: tuple[str, ...], resume_from: Path | None, runs: Path, as_json: bool
) -> None:
    """Train the model of RECIPE, a TOML file, and leave a run folder with everything in it.

    Ctrl-C finishes the step, saves, and says how to go on. Exits with 1 if the run fails, 130 if it was stopped.
    """
    if resume_from is None and recipe is None:
        raise UsageError("give a RECIPE, or --resume RUN", hint="see `helix train --help`")
    if resume_from is not None and recipe is not None:
        raise UsageError("a resumed run has its own recipe; give either RECIPE or --resume RUN")
    from helix_plugin_lm.runs import RunFolder
    from helix_plugin_training import resume, train
    from helix_plugin_training.recipes import load_recipe

    if recipe is not None:
        run = train(load_recipe(recipe, overrides), runs=runs)
    else:
        assert resume_from is not None
        folder, checkpoint = RunFolder.find(resume_from)
        wanted = load_recipe(folder.recipe_file, overrides) if overrides else None
        run = resume(folder, wanted, checkpoint=checkpoint)
    _report(run.path, as_json)


def _report(path: Path, as_json: bool) -> None:
    import json

    from helix_plugin_lm.runs import RunFolder
    from helix_plugin_training.plot import can_plot

    run = RunFolder(path)
    summary = run.summary()
    if as_json:
        click.echo(json.dumps({"run": str(path), **summary}, indent=2))
        return
    click.echo(f"\n--- samples ({run.path / summary['sample']}) ---")
    click.echo((run.path / summary["sample"]).read_bytes().decode("utf-8", "replace"))
    click.echo("---")
    units = "tokens" if "train_tokens" in summary else "bytes"
    speed = summary[f"train_{units}_per_second"]
    click.echo(
        f"{summary['parameters']:,} parameters trained for {summary['steps']} steps on {summary[f'train_{units}']:,} "
        f"{units} in {summary['train_seconds']:.0f} s ({speed:,.0f} {units}/s, backend {summary['backend']})"
    )
    if "val_accuracy" in summary:
        click.echo(
            f"held out: accuracy {summary['val_accuracy']:.4f}, {summary['val_bits_per_token']:.3f} bits/token; "
            f"{summary['val_solved']:.1%} of {summary['val_samples']} samples are right throughout"
        )
    else:
        click.echo(
            f"held out: {summary['val_bits_per_byte']:.3f} bits/byte; "
            f"gzip -9 on the same {summary['val_documents']} files: {summary['gzip_bits_per_byte']:.3f}"
        )
    if not can_plot():
        click.echo("loss.png not drawn: pip install 'helix-plugin-training[plot]'")
    click.echo(f"run folder: {path}")
