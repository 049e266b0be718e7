"""`helix data generate`: a generator's samples as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from helix_core.cli.overrides import apply_override
from helix_core.errors import UsageError


def options_from(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Options of a generator from `key=value` texts."""
    options: dict[str, Any] = {}
    for item in overrides:
        apply_override(options, item)
    return options


@click.command()
@click.argument("name", required=False)
@click.option("--preset", "preset_name", metavar="NAME", help="A named dataset, instead of NAME, N and options.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the shards.")
@click.option("-n", "--n", "n", type=int, help="Number of samples.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of the samples.")
@click.option("--set", "overrides", multiple=True, metavar="OPTION=VALUE", help="An option of the generator.")
@click.option("--start", default=0, show_default=True, type=int, help="Index of the first sample.")
@click.option("--format", "file_format", default="parquet", show_default=True, help="parquet, arrow or safetensors.")
@click.option("--shard-size", default=10_000, show_default=True, type=int, help="Samples per file.")
@click.option("--workers", default=1, show_default=True, type=int, help="Processes; the bytes do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def generate(
    name: str | None,
    preset_name: str | None,
    out: Path,
    n: int | None,
    seed: int,
    overrides: tuple[str, ...],
    start: int,
    file_format: str,
    shard_size: int,
    workers: int,
    as_json: bool,
) -> None:
    """Write N samples of generator NAME to a folder of shards with a manifest.

    The same seed and options give the same bytes. A command that was stopped goes on where it was when given again.
    """
    from helix_core.cli.progress import Progress
    from helix_plugin_synthetic.presets import preset
    from helix_plugin_synthetic.storage import Plan, write_dataset

    if preset_name is not None:
        if name is not None or n is not None or overrides or seed or start:
            raise UsageError("a preset is fixed: give --preset alone, with --out, --format, --shard-size and --workers")
        plan = preset(preset_name).plan(format=file_format, shard_size=shard_size)
    elif name is None or n is None:
        raise UsageError(
            "give a generator's NAME and -n, or --preset", hint="`helix describe generator` lists generators"
        )
    else:
        options = options_from(overrides)
        plan = Plan.of(name, options, seed=seed, n=n, start=start, format=file_format, shard_size=shard_size)
    with Progress(plan.n, label="generating") as progress:
        manifest = write_dataset(
            plan, out, workers=workers, progress=lambda count: progress.update(progress.done + count, "samples")
        )
    if as_json:
        click.echo(json.dumps(manifest, indent=2))
        return
    size = sum(record["bytes"] for record in manifest["shards"])
    what = f"{plan.n:,} samples of {plan.generator}, seed {plan.seed}"
    click.echo(f"{what}: {plan.shards} {file_format} files, {size:,} bytes: {out}")
    click.echo(f"content {manifest['content']}")
