"""`helix data presets`: named datasets."""

from __future__ import annotations

import click

from helix_core.errors import DataError


@click.command()
@click.option("--check", multiple=True, metavar="NAME", help="Generate a preset and compare its fingerprint.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def presets(check: tuple[str, ...], as_json: bool) -> None:
    """List the named datasets; `helix data generate --preset NAME` writes one."""
    from helix_core.cli.listing import print_json, print_table
    from helix_plugin_synthetic.presets import PRESETS, preset

    for name in check:
        expected, found = preset(name).content, preset(name).fingerprint()
        if found != expected:
            raise DataError(
                f"preset {name} is {found} here, recorded is {expected}",
                hint="another version of NumPy or networkx draws other numbers; constraints.txt has those recorded",
            )
        if not as_json:
            click.echo(f"{name}: {found}, as recorded")
    if check:
        if as_json:
            print_json([{"name": name, "content": preset(name).content} for name in check])
        return
    if as_json:
        print_json(
            [{"name": p.name, "generator": p.generator, "n": p.n, "content": p.content} for p in PRESETS.values()]
        )
    else:
        rows = [(p.name, p.generator, p.n, p.summary, p.content[:12]) for p in PRESETS.values()]
        print_table(("NAME", "GENERATOR", "N", "SUMMARY", "CONTENT"), rows)
