"""`helix data verify`: is a generator's output what it says?"""

from __future__ import annotations

from pathlib import Path

import click

from helix_core.errors import DataError, UsageError


@click.command()
@click.argument("what")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the report: JSON and a page with plots.")
@click.option("-n", "--n", "n", default=300, show_default=True, type=int, help="Samples to look at.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of the samples.")
@click.option("--set", "overrides", multiple=True, metavar="OPTION=VALUE", help="An option of the generator.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(what: str, out: Path | None, n: int, seed: int, overrides: tuple[str, ...], as_json: bool) -> None:
    """Verify WHAT, a generator's name or a folder that `helix data generate` wrote.

    Regenerates samples, tests that they are of one distribution, and estimates from them the parameters that made
    them. Exits with 1 if a check fails.
    """
    from itertools import islice

    from helix_core.cli.listing import print_json, print_table
    from helix_plugin_synthetic.commands.generate import options_from
    from helix_plugin_synthetic.storage import Plan, open_dataset
    from helix_plugin_synthetic.verify.report import verify as check
    from helix_plugin_synthetic.verify.report import write_report

    if n < 1:
        raise UsageError("give --n of at least 1")
    if Path(what).is_dir():
        if overrides:
            raise UsageError("a dataset has its own options; --set goes with a generator's name")
        dataset = open_dataset(what)
        plan = dataset.plan
        samples = list(islice(dataset, n))
        generator = plan.make()
    else:
        plan = Plan.of(what, options_from(overrides), seed=seed, n=n)
        generator = plan.make()
        samples = [generator.sample(seed, index) for index in range(n)]
    report = check(plan.generator, generator, samples, seed=plan.seed, start=plan.start)
    if out is not None:
        write_report(report, generator, samples, out)
    if as_json:
        print_json(report.as_dict())
    else:
        verdicts = {True: "passed", False: "FAILED", None: "fact"}
        rows = [
            (
                c.name,
                *(("" if v is None else f"{v:.5g}") for v in (c.value, c.expected, c.p_value)),
                verdicts[ok],
                c.detail,
            )
            for c, ok in zip(report.checks, report.passed, strict=True)
        ]
        print_table(("CHECK", "FOUND", "EXPECTED", "P", "VERDICT", ""), rows)
        if out is not None:
            click.echo(f"report: {out / 'index.html'}")
    if not report.ok:
        failed = [c.name for c, ok in zip(report.checks, report.passed, strict=True) if ok is False]
        raise DataError(f"{plan.generator} failed: {', '.join(failed)}")
