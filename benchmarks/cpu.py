"""The cpu backend beside its peers: times, memory, and how near the machine's limit.

    pip install -r requirements-bench.txt
    python benchmarks/cpu.py                      # every row, some forty minutes on an idle machine
    python benchmarks/cpu.py scan long_conv       # rows whose file or work contains a word
    python benchmarks/cpu.py --list
    python benchmarks/cpu.py --json benchmarks/results/cpu-NAME.json --table docs/speed-table.md

Rows live in `cpu_rows/`, one file for a kind of work, each with a list `ROWS` (see `side_by_side/row.py`). Ours and
its peers run in processes of their own and take turns; a sample counts only if other processes used less than 8 % of a
core while it ran. That is done in several processes of each side, one set after the other, since processes of the same
program differ by up to a third; a side's time is the median of its processes' medians, and a row of which most
processes had no quiet sample says so. `processes_s` and `waited` of the results, the medians of the processes and the
seconds in a second that threads waited for a core, tell whether one was unlucky. Peers on torch run with a tuned
allocator. What the sides return is compared too, and a difference over the row's tolerance fails the run. `--json`
keeps the rows of an earlier run that this one does not measure.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import click  # noqa: E402

from side_by_side.measure import compare  # noqa: E402
from side_by_side.report import Result, markdown, met, results  # noqa: E402
from side_by_side.row import Row  # noqa: E402


def rows(words: tuple[str, ...], folder: str = "cpu_rows") -> list[Row]:
    """The rows whose file's name or work contains one of the words; all without words."""
    found = []
    for path in sorted((HERE / folder).glob("[a-z]*.py")):
        for row in importlib.import_module(f"{folder}.{path.stem}").ROWS:
            if not words or any(word in path.stem or word in row.work for word in words):
                found.append(row)
    return found


@click.command()
@click.argument("words", nargs=-1)
@click.option("--list", "only_list", is_flag=True, help="Print the rows and stop.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the results here.")
@click.option("--table", "table_file", type=click.Path(path_type=Path), help="Write the table, as Markdown, here.")
@click.option("--samples", default=3, show_default=True, help="Quiet samples of each process.")
@click.option("--patience", default=20.0, show_default=True, help="Seconds to wait for them.")
@click.option("--processes", default=3, show_default=True, help="Of each side, one after the other.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.pass_obj
def main(
    folder: str | None,
    words: tuple[str, ...],
    only_list: bool,
    json_file: Path | None,
    table_file: Path | None,
    samples: int,
    patience: float,
    processes: int,
    threads: int,
) -> None:
    """Measure work side by side with its peers; WORDS select rows."""
    chosen = rows(words, folder or "cpu_rows")
    if not chosen:
        raise click.UsageError(f"no row contains {' or '.join(words)}; --list prints them all")
    if only_list:
        for row in chosen:
            click.echo(f"{row.work}: {', '.join(row.peers) or 'no peer'}")
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from side_by_side.machine import description, rates

    table: list[Result] = []
    wrong = []
    for row in chosen:
        speeds = rates()  # anew for every row: neighbours of a shared machine come and go
        click.echo("  ".join(f"{name} {value:.3g}" for name, value in speeds.items()), err=True)
        found = compare(row, samples, patience, threads, processes)
        for name, side in found.items():
            if side.missing is not None:
                click.echo(f"{row.work}: {name} not run: {side.missing}", err=True)
            if side.error is not None and not side.error <= row.tolerance:
                wrong.append(f"{row.work}: ours differs from {name} by {side.error:.1e}")
        for result in results(row, found, speeds):
            table.append(result | {"rates": speeds})
            click.echo(line(result), err=True)
        if json_file:  # after every row: a run that is stopped keeps what it measured
            whole = kept(json_file, table) + table
            json_file.write_text(json.dumps({"machine": description(), "rows": whole}, indent=1) + "\n")
    whole = kept(json_file, table) + table if json_file else table
    if table_file:
        table_file.write_text(markdown(whole) + "\n")
    click.echo(markdown(whole))
    if wrong:
        raise click.ClickException("; ".join(wrong))


def kept(json_file: Path, new: list[Result]) -> list[Result]:
    """Results of an earlier run for work that was not measured now."""
    if not json_file.exists():
        return []
    again = {result["work"] for result in new}
    return [result for result in json.loads(json_file.read_text())["rows"] if result["work"] not in again]


def line(result: Result) -> str:
    if "not_run" in result:
        return f"{result['work']}: not run: {result['not_run']}"
    fraction = f", {result['limit_fraction']:.0%} of the limit" if result.get("limit_fraction") else ""
    ratio = f", {result['ratio']}x of {result['peer']} (target {result['target']}x)" if result["peer"] else ""
    verdict = {True: "", False: "  BELOW TARGET", None: ""}[met(result)]
    quiet = "" if result["quiet"] else "  (busy machine)"
    return f"{result['work']}: {result['ours_s'] * 1e3:.3f} ms{ratio}{fraction}{verdict}{quiet}"


if __name__ == "__main__":
    main()
