"""What the conformance kit says of every backend: runs it on those usable here, writes the table of docs/backends.md.

    python benchmarks/backend_matrix.py                 # every backend, some minutes each
    python benchmarks/backend_matrix.py jax metal       # these; the others keep the results of an earlier run
    python benchmarks/backend_matrix.py --table-only    # the table from the results as they are

A level is as the kit reports it: passed, failed, not implemented (the backend does not declare it) or not run. A
backend that cannot be used here is "not run here".
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "backends.json"
PAGE = ROOT / "docs" / "backends.md"
BEGIN, END = "<!-- matrix: benchmarks/backend_matrix.py writes it -->\n", "<!-- end of matrix -->\n"
LEVELS = ("descriptor", "basic", "ops", "grad", "train", "compile")
SIGNS = {"passed": "passed", "failed": "**failed**", "not implemented": "–", "not run": "not run here"}


def measure(name: str) -> dict[str, Any]:
    """The kit's report on a backend, and where it ran."""
    from helix_core import create
    from helix_core.errors import HelixError
    from helix_core.plugin_system import select

    not_run = {"levels": dict.fromkeys(LEVELS, "not run"), "where": None}
    try:
        select("backend", name)
        description = create("backend", name).describe()
    except HelixError as error:
        return not_run | {"why": str(error).splitlines()[0]}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", "-q", f"--helix-backend={name}", f"--helix-report={report}"]
        subprocess.run([*command, "-p", "no:cacheprovider"], cwd=folder, check=False)
        levels = json.loads(report.read_text())[name]
    return {"levels": levels, "where": {"machine": platform.machine(), "system": platform.system(), **description}}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [f"| backend | {' | '.join(LEVELS)} | ran on |", "|---" * (len(LEVELS) + 2) + "|"]
    for name, row in sorted(results.items()):
        where = row["where"] or {}
        shown = dict.fromkeys(str(where[k]) for k in ("device", "device_kind", "system", "machine") if k in where)
        device = ", ".join(shown)
        lines.append(f"| `{name}` | {' | '.join(SIGNS[row['levels'][level]] for level in LEVELS)} | {device or '–'} |")
    return "\n".join(lines) + "\n"


def write_page(results: dict[str, dict[str, Any]]) -> None:
    text = PAGE.read_text()
    head, rest = text.split(BEGIN)
    PAGE.write_text(head + BEGIN + table(results) + END + rest.split(END)[1])


@click.command()
@click.argument("names", nargs=-1)
@click.option("--table-only", is_flag=True)
def main(names: tuple[str, ...], table_only: bool) -> None:
    from helix_core.plugin_system import components

    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known = [c.name for c in components("backend")]
    if unknown := set(names) - set(known):
        raise click.UsageError(f"no backend {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in () if table_only else names or known:
        results[name] = measure(name)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    write_page({name: row for name, row in results.items() if name in known})
    click.echo(table(results))


if __name__ == "__main__":
    main()
