"""`helix explain layer NAME --cost`: what a layer costs beside attention of equal parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from helix_core.cli.listing import print_json, print_table
from helix_core.errors import UsageError


def explain_cost(
    name: str, d_model: int, length: int, batch: int, dtype: str, options: Iterable[str], as_json: bool
) -> None:
    """Print the costs of layer `name`. Raises UsageError without a name, and what `create` raises."""
    from helix_core.cli.overrides import apply_override
    from helix_core.kinds.cost import attention_cost
    from helix_core.plugin_system import create

    if name == "auto":
        raise UsageError("--cost needs the name of a layer", hint="`helix describe layer` lists them")
    given: dict[str, Any] = {}
    for item in options:
        apply_override(given, item)
    if "d_model" in given:
        raise UsageError("d_model is set by --d-model")
    layer = create("layer", name, d_model=d_model, **given)
    itemsize = {"float32": 4, "bfloat16": 2, "float16": 2}[dtype]
    cost = layer.cost(length, batch=batch, itemsize=itemsize)
    attention = attention_cost(cost.parameters, d_model, length, batch=batch, itemsize=itemsize)
    if as_json:
        asked = {"name": name, "options": {"d_model": d_model, **given}, "length": length, "batch": batch}
        print_json({**asked, "dtype": dtype, "layer": asdict(cost), "attention": asdict(attention)})
        return
    set_ = "".join(f", {key} = {value}" for key, value in given.items())
    click.echo(f"{name} with d_model = {d_model}{set_}; {length} tokens, batch {batch}, {dtype}\n")
    rows = [
        ("parameters", "parameters", ""),
        ("FLOPs per token, all at once", "forward_flops", "FLOP"),
        ("FLOPs per decoded token", "step_flops", "FLOP"),
        ("state of a sequence", "state_bytes", "B"),
        ("memory traffic per decoded token", "step_bytes", "B"),
    ]
    table = []
    for label, field, unit in rows:
        ours, theirs = getattr(cost, field), getattr(attention, field)
        ratio = f"{ours / theirs:.3g}" if theirs else "-"
        table.append((label, *(f"{short(v)}{' ' * (short(v)[-1].isdigit())}{unit}" for v in (ours, theirs)), ratio))
    print_table(("", name, "attention", "ratio"), table)
    click.echo(
        f"\nattention: four projections with as many parameters and a cache of {length} keys and values.\n"
        "A FLOP is an addition, a multiplication or an exponential; training takes about three times those of\n"
        "all at once. Elementwise work on the stream is not counted."
    )


def short(value: float) -> str:
    """Three digits and a prefix: 6.63 M."""
    prefixes = ["", "k", "M", "G", "T"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        del prefixes[0]
    digits = f"{value:#.3g}".rstrip(".") if len(prefixes) < 5 else f"{value:.3g}"
    return f"{digits} {prefixes[0]}".rstrip()
