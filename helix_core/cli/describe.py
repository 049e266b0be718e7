"""`helix describe`: a component, its docstring and the schema of its options."""

from __future__ import annotations

import inspect
from typing import Any

import click

from helix_core.cli.listing import print_json, print_table
from helix_core.plugin_system.descriptors import KINDS


@click.command()
@click.argument("kind", type=click.Choice([k for k in KINDS if k != "command"]))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str, name: str | None, as_json: bool) -> None:
    """Show the component KIND NAME, or list all of a kind.

    JSON for one: name, kind, plugin, summary, doc, target, requires, provides, priority, stability and
    config_schema (JSON Schema of its options, or null); for a kind: a list of name, plugin and summary.
    """
    from helix_core.plugin_system import components, config_model, create_target, explain

    if name is None:
        found = components(kind)
        if as_json:
            print_json([{"name": c.name, "plugin": c.plugin, "summary": c.descriptor.summary} for c in found])
        else:
            print_table(("NAME", "PLUGIN", "SUMMARY"), [(c.name, c.plugin, c.descriptor.summary) for c in found])
            if kind == "layer":
                click.echo("\n`helix explain layer NAME --cost` gives FLOPs, bytes and the size of the state")
        return
    selection = explain(kind, name)
    # A component that cannot run here can still be described.
    looked_at = [c.component for c in selection.candidates]
    known = selection.component or (looked_at[0] if len(looked_at) == 1 else None)
    if known is None:
        raise selection.error or AssertionError("a selection without a component has an error")
    descriptor = known.descriptor
    model = config_model(known)
    shown: dict[str, Any] = {
        "name": known.name,
        "kind": kind,
        "plugin": known.plugin,
        "summary": descriptor.summary,
        "doc": inspect.getdoc(create_target(known)),
        "target": descriptor.target,
        "requires": list(descriptor.requires),
        "provides": list(descriptor.provides),
        "priority": descriptor.priority,
        "stability": descriptor.stability,
        "config_schema": model.model_json_schema() if model else None,
    }
    if as_json:
        print_json(shown)
        return
    click.echo(f"{kind} {known.full_name}: {descriptor.summary}\n")
    if shown["doc"]:
        click.echo(f"{shown['doc']}\n")
    for key in ("target", "requires", "provides", "stability"):
        value = shown[key]
        click.echo(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    if kind == "layer":
        click.echo(f"FLOPs, bytes and size of the state: `helix explain layer {known.name} --cost`")
    if model:
        click.echo("\noptions:")
        rows = []
        for key, field in model.model_fields.items():
            value = field.get_default(call_default_factory=True)
            default = "required" if field.is_required() else repr(value)
            rows.append((f"  {key}", default, field.description or ""))
        print_table(("  OPTION", "DEFAULT", "MEANING"), rows)
        click.echo("\nJSON Schema: add --json")
