"""The page of results."""

from __future__ import annotations

from typing import Any

from invariants import CHECKS

GOOD = 1e-4

HEAD = """# Correctness beside transformers

A recurrent model must say the same whether a prompt is padded, packed, cached, or read in pieces. These are seven such
invariants, checked in the same way on Helix's layers (in a model of two blocks, on the backend `{backend}`) and on the
models of Hugging Face transformers, tiny and with random weights, through their documented arguments:
`attention_mask`, `position_ids`, the output's own cache, and for packed documents what `DataCollatorWithFlattening`
returns. Figures are the largest difference from the model's own answer to the same tokens alone and at once, over that
answer's largest logit, in float32; about 1e-7 is rounding, **bold** is wrong without an error, "refused" is an error
that the model raises. A model without an argument for a case is handed it all the same, as a training loop would, and
most take it and ignore it: that is bold too. For generation transformers documents padding on the left; padding on the
right is what training batches have. Attention (Llama) is there as a control.

    python benchmarks/correctness

wrote this page, and `benchmarks/results/correctness.json`, with {versions}.
"""


def page(results: dict[str, Any]) -> str:
    """Markdown from the results of `__main__`."""
    head = HEAD.format(versions=results["versions"], backend=results["backend"])
    parts = [head, "## Helix\n", _table(results["ours"])]
    if results["theirs"]:
        parts += ["## transformers\n", _table(results["theirs"]), *_refusals(results["theirs"])]
    return "\n".join(parts)


def _table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| | " + " | ".join(CHECKS) + " |", "|---" * (len(CHECKS) + 1) + "|"]
    for name, row in found.items():
        lines.append(f"| {name} | " + " | ".join(_cell(row[check]) for check in CHECKS) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return "refused"
    text = "0" if value == 0 else f"{value:.0e}" if value < 1e-3 else f"{value:.2g}"
    return text if value <= GOOD else f"**{text}**"


def _refusals(found: dict[str, dict[str, Any]]) -> list[str]:
    texts = [
        f"- {name}, {check}: `{v}`" for name, row in found.items() for check, v in row.items() if isinstance(v, str)
    ]
    return ["Refused:\n", *texts, ""] if texts else []
