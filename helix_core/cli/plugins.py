"""`helix plugins`: what is installed and how each plugin fared."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click

from helix_core.cli.listing import print_json, print_table
from helix_core.plugin_system import components, plugins


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the installed plugins.

    JSON: a list of objects with name, distribution, version, module, status (ok, denied, incompatible or
    failed), reason, editable (source folder or null) and components (count by kind).
    """
    counts: dict[str, Counter[str]] = {}
    for component in components():
        counts.setdefault(component.plugin, Counter())[component.kind] += 1
    found = plugins()
    provided: list[dict[str, int]] = [counts.get(p.name, Counter()) if p.status == "ok" else {} for p in found]
    if as_json:
        print_json([{**asdict(p), "components": dict(c)} for p, c in zip(found, provided, strict=True)])
        return
    rows = []
    for p, c in zip(found, provided, strict=True):
        provides = ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in c.items())
        rows.append((p.name, p.distribution, p.version, p.status, provides if p.status == "ok" else p.reason))
    print_table(("PLUGIN", "DISTRIBUTION", "VERSION", "STATUS", "PROVIDES / REASON"), rows)
