"""`helix explain`: which component or kernel would be used, and why not the others."""

from __future__ import annotations

from dataclasses import asdict

import click

from helix_core.cli.cost_table import explain_cost
from helix_core.cli.listing import print_json
from helix_core.errors import UsageError
from helix_core.plugin_system.descriptors import KINDS


@click.command()
@click.argument("kind", type=click.Choice([*(k for k in KINDS if k != "command"), "op"]))
@click.argument("name", default="auto")
@click.option("--needs", multiple=True, metavar="WORD", help="A capability it must provide; repeatable.")
@click.option("--backend", default="auto", show_default=True, help="With op: the backend that binds the ops.")
@click.option("--dtype", default="float32", show_default=True, help="With op or --cost: the dtype.")
@click.option(
    "--mode",
    default="train",
    show_default=True,
    type=click.Choice(["train", "infer"]),
    help="With op: the mode.",
)
@click.option("--cost", is_flag=True, help="With layer: FLOPs, bytes and state size beside attention's.")
@click.option("--d-model", type=click.IntRange(min=1), help="With --cost: width of the stream.  [default: 1024]")
@click.option("--length", type=click.IntRange(min=1), help="With --cost: tokens of a sequence.  [default: 2048]")
@click.option("--batch", type=click.IntRange(min=1), help="With --cost: sequences decoded together.  [default: 1]")
@click.option("--set", "options", multiple=True, metavar="KEY=VALUE", help="With --cost: an option of the layer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    kind: str,
    name: str,
    needs: tuple[str, ...],
    backend: str,
    dtype: str,
    mode: str,
    cost: bool,
    d_model: int | None,
    length: int | None,
    batch: int | None,
    options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what KIND NAME resolves to here, with a line for every candidate.

    NAME defaults to auto, or to all ops. Exits with 1 if nothing can be used. JSON for a component: kind,
    requested, chosen (or null), how, error (or null), warnings (a list of texts) and candidates (name,
    accepted, reason, broken); for ops a list of op, summary, chosen, reason and refused; with --cost layer and
    attention, each parameters, forward_flops, step_flops, state_bytes and step_bytes.
    """
    if cost and kind != "layer":
        raise UsageError("--cost goes with a layer", hint="helix explain layer NAME --cost")
    if cost:
        explain_cost(name, d_model or 1024, length or 2048, batch or 1, dtype, options, as_json)
        return
    if d_model or length or batch or options:
        raise UsageError("--d-model, --length, --batch and --set go with --cost")
    if kind == "op":
        _explain_ops(None if name == "auto" else name, backend, dtype, mode, as_json)
        return
    from helix_core.plugin_system import explain

    selection = explain(kind, name, needs)
    candidates = [
        {"name": c.component.full_name, "accepted": c.accepted, "reason": c.reason, "broken": c.broken}
        for c in selection.candidates
    ]
    chosen = selection.component.full_name if selection.component else None
    if as_json:
        print_json(
            {
                "kind": kind,
                "requested": name,
                "chosen": chosen,
                "how": selection.how,
                "error": str(selection.error) if selection.error else None,
                "warnings": list(selection.warnings),
                "candidates": candidates,
            }
        )
    elif chosen:
        click.echo(f"{kind} {name} -> {chosen}  ({selection.how})")
        for c in candidates:
            verdict = "chosen" if c["name"] == chosen else ("usable" if c["accepted"] else "refused")
            click.echo(f"  {verdict:8}{c['name']}: {c['reason']}")
        for text in selection.warnings:
            click.echo(f"  warning: {text}")
    else:
        click.echo(f"{kind} {name} -> nothing\n{selection.error}")
    if not chosen:
        ctx.exit(1)


def _explain_ops(op: str | None, backend: str, dtype: str, mode: str, as_json: bool) -> None:
    from helix_core.errors import ComponentNotFound
    from helix_core.ops import OPS
    from helix_core.plugin_system import create
    from helix_core.suggest import did_you_mean

    if op is not None and op not in OPS:
        raise ComponentNotFound(f"no op named {op!r}{did_you_mean(op, OPS)}")
    trail = create("backend", backend).bind(dtype=dtype, mode=mode).trail
    choices = [trail[op]] if op else list(trail.values())
    if as_json:
        print_json([{"summary": OPS[choice.op].summary, **asdict(choice)} for choice in choices])
        return
    for choice in choices:
        click.echo(f"{choice.op} -> {choice.chosen}  ({choice.reason})")
        if op:
            click.echo(f"  {OPS[op].summary}")
        for refused in choice.refused:
            click.echo(f"  refused {refused.kernel}: {refused.reason}")
