"""The backend cuda on a card: every kernel checked, then timed beside torch.compile and installed peers.

    python benchmarks/gpu/bench.py --json benchmarks/results/gpu-NAME.json --table docs/gpu-table.md
    python benchmarks/gpu/bench.py selective_scan ssd --dtype bfloat16
    TRITON_INTERPRET=1 python benchmarks/gpu/bench.py --check-only      # no card: the checks alone

Sides are the kernels that the op table knows and can bind here (ours, torch's own, mamba-ssm, causal-conv1d, fla),
torch.compile of the op's reference where that has no loop over time and, beside `bit_linear`, torch's product with the
same weights unpacked. Every side is first compared with the float64 definition on the op's own samples; one that fails
is not timed, and the run fails. Times are medians between events of the card, with its cache cleared in between;
training is a forward pass and the gradient of its first output. The limit of a row is the larger of bytes over the
bandwidth of a copy and operations over the rate of a matrix product, both measured in the same run; bytes are those of
inputs and outputs, read or written once, and of their gradients for training.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from inputs import Work, works

from helix_core import create
from helix_core.errors import HelixError
from helix_core.ops import OPS
from helix_core.ops.ternary import unpack_ternary
from helix_core.plugin_system import kernel_descriptors
from helix_testing.levels.base import as_tuple
from helix_testing.levels.ops import check_values

REFERENCE, COMPILED, DENSE = "core/reference", "torch.compile", "torch linear"
UNCHECKED = {COMPILED: "the definition", DENSE: "activations are not rounded"}


def sides(backend: Any, op: str, dtype: str) -> dict[str, Any]:
    """The tables that bind one candidate each; those that refuse are left out."""
    found = {}
    for plugin, descriptor in kernel_descriptors():
        name = f"{plugin}/{descriptor.name}"
        if descriptor.op == op and "cuda" in descriptor.devices and dtype in descriptor.dtypes:
            try:
                found[name] = backend.bind(dtype=dtype, mode="train", pins={op: name})
            except HelixError as error:
                click.echo(f"  {name}: {error}")
    return dict(sorted(found.items(), key=lambda pair: not pair[0].startswith("cuda/")))


def check(backend: Any, op: str, table: Any, dtype: str, seed: int) -> str | None:
    """What is wrong with a side on the op's own samples, or None."""
    for sample in OPS[op].samples(np.random.default_rng(seed)):
        try:
            check_values(backend, table, OPS[op], sample, dtype)
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def ceilings() -> dict[str, float]:
    """Bytes per second of a copy, and operations per second of a matrix product, on this card."""
    from triton.testing import do_bench

    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found = {"bytes_per_s": 2 * source.numel() / (do_bench(lambda: target.copy_(source), return_mode="median") / 1e3)}
    for dtype in ("float32", "bfloat16", "float16"):
        a = torch.randn(8192, 8192, dtype=getattr(torch, dtype), device="cuda")
        seconds = do_bench(lambda a=a: a @ a, return_mode="median") / 1e3
        found[f"{dtype}_flops_per_s"] = 2 * 8192**3 / seconds
    whole = torch.ones(8192, 8192, dtype=torch.int8, device="cuda")
    seconds = do_bench(lambda: torch._int_mm(whole, whole.T), return_mode="median") / 1e3
    found["int8_flops_per_s"] = 2 * 8192**3 / seconds
    return found


def unpacked(backend: Any, work: Work, dtype: str) -> Callable[..., torch.Tensor]:
    """torch's linear map with the weights of a `bit_linear` in whole numbers of `dtype`."""
    given = work.arrays(np.random.default_rng(0))
    weight = backend.asarray(unpack_ternary(given["packed"], given["x"].shape[-1]) * given["scale"], dtype)
    return lambda x, *rest: torch.nn.functional.linear(x, weight)


def traffic(arrays: dict[str, torch.Tensor], outputs: tuple[torch.Tensor, ...]) -> int:
    """Bytes of inputs and outputs."""
    return sum(a.numel() * a.element_size() for a in (*arrays.values(), *outputs))


def measure(backend: Any, work: Work, run: Callable[..., Any], dtype: str, rates: dict[str, float]) -> dict:
    """Milliseconds of a forward and, unless it is decoding, of a forward with backward; how near the limit they are."""
    from triton.testing import do_bench

    op = OPS[work.op]
    given = work.arrays(np.random.default_rng(0)).items()
    arrays = {n: backend.asarray(a, "float32" if n == "initial_state" else dtype) for n, a in given}

    def forward() -> tuple[torch.Tensor, ...]:
        return as_tuple(run(*(arrays.get(n) for n in op.arrays), **work.attrs))

    with torch.no_grad():
        outputs = forward()
        forward_ms = do_bench(forward, return_mode="median")
    bytes_ = traffic(arrays, outputs)
    attrs = {**op.attrs, **work.attrs}
    shapes = [tuple(arrays[n].shape) if n in arrays else None for n in op.arrays]
    flops = op.flops(*shapes, **attrs) if op.flops else 0.0
    limit = max(bytes_ / rates["bytes_per_s"], flops / rates[f"{work.rate or dtype}_flops_per_s"]) * 1e3
    row = {
        "forward_ms": forward_ms,
        "forward_bytes_per_s": bytes_ / forward_ms * 1e3,
        "forward_flops_per_s": flops / forward_ms * 1e3,
        "forward_share_of_limit": limit / forward_ms,
    }
    if work.decoding:
        return row
    for a in arrays.values():
        a.requires_grad_(a.is_floating_point())
    slope = torch.randn_like(outputs[0])

    def train() -> None:
        for a in arrays.values():
            a.grad = None
        forward()[0].backward(slope)

    train_ms = do_bench(train, return_mode="median")
    return row | {"train_ms": train_ms, "train_share_of_limit": 3 * limit / train_ms}


def markdown(report: dict[str, Any]) -> str:
    """The table of a report."""
    lines = [
        f"Measured on {report['device']} with torch {report['torch']} and triton {report['triton']}.",
        "",
        "| op | inputs | dtype | side | check | forward ms | GB/s | TFLOP/s | of the limit | train ms | of the limit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cells = [row["op"], row["inputs"], row["dtype"], row["side"], row["check"]]
        times = ["", "", "", "", "", ""]
        if "forward_ms" in row:
            times = [
                f"{row['forward_ms']:.3f}",
                f"{row['forward_bytes_per_s'] / 1e9:.0f}",
                f"{row['forward_flops_per_s'] / 1e12:.1f}" if row["forward_flops_per_s"] else "",
                f"{row['forward_share_of_limit']:.0%}",
                *("", ""),
            ]
        if "train_ms" in row:
            times[4:] = [f"{row['train_ms']:.3f}", f"{row['train_share_of_limit']:.0%}"]
        lines.append(f"| {' | '.join(cells + times)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("words", nargs=-1)
@click.option("--check-only", is_flag=True, help="Compare with the definitions, time nothing.")
@click.option("--dtype", "dtypes", multiple=True, default=("float32", "bfloat16"), show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the results here.")
@click.option("--table", "table_file", type=click.Path(path_type=Path), help="Write the table, as Markdown, here.")
@click.option("--seed", default=0, show_default=True, help="Of the checks' inputs.")
def main(
    words: tuple[str, ...],
    check_only: bool,
    dtypes: tuple[str, ...],
    json_file: Path | None,
    table_file: Path | None,
    seed: int,
) -> None:
    """Ops whose name is one of WORDS; all without words."""
    backend = create("backend", "cuda")
    description = backend.describe()
    if description.get("interpreter") and not check_only:
        raise click.UsageError("Triton's interpreter says nothing about speed: run with --check-only")
    report: dict[str, Any] = {
        "device": description.get("card", "Triton's interpreter"),
        "torch": description["torch"],
        "triton": description["triton"],
        "ceilings": {} if check_only else ceilings(),
        "rows": [],
    }
    failed = 0
    chosen = [w for w in works() if not words or w.op in words]
    if not chosen:
        raise click.UsageError(f"no op is named {' or '.join(words)}: {', '.join(sorted({w.op for w in works()}))}")
    for dtype in dtypes:
        for op in dict.fromkeys(w.op for w in chosen):
            click.echo(f"{op}, {dtype}")
            tables = sides(backend, op, dtype)
            wrong = {name: check(backend, op, table, dtype, seed) for name, table in tables.items()}
            for name, why in wrong.items():
                failed += why is not None
                click.echo(f"  {name}: {why or 'equals its definition'}")
            for work in [w for w in chosen if w.op == op]:
                listed = {name: getattr(table, op) for name, table in tables.items()}
                if work.compiled and not check_only:
                    reference = backend.bind(dtype=dtype, mode="train", pins={op: REFERENCE})
                    listed[COMPILED] = torch.compile(getattr(reference, op), fullgraph=True)
                if op == "bit_linear" and not check_only:
                    listed[DENSE] = unpacked(backend, work, dtype)
                for name, run in listed.items():
                    row = {"op": op, "inputs": work.label, "dtype": dtype, "side": name}
                    row["check"] = wrong.get(name) or "passed" if name in wrong else UNCHECKED[name]
                    if not check_only and wrong.get(name) is None:
                        row |= measure(backend, work, run, dtype, report["ceilings"])
                        times = [f"{row[key]:.3f}" for key in ("forward_ms", "train_ms") if key in row]
                        click.echo(f"  {work.label} {name}: {' / '.join(times)} ms")
                    report["rows"].append(row)
    if json_file:
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if table_file:
        table_file.write_text(markdown(report), encoding="utf-8")
    if failed:
        raise SystemExit(f"{failed} sides differ from their definition")


if __name__ == "__main__":
    main()
