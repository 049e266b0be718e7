"""Invariants of recurrent models: Helix's layers, and beside them transformers' models, through the same checks.

    pip install -r requirements-bench.txt
    python benchmarks/correctness                  # writes benchmarks/results/correctness.json, docs/correctness.md
    python benchmarks/correctness mamba Mamba      # only these, printed and written nowhere

Random weights, float32, a minute. A figure is the largest difference from the model's own answer to the same tokens
without padding, packing or cache, over that answer's largest logit. Exits with 1 if a layer of ours is off by more
than 1e-4.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from invariants import CHECKS
from report import page

import helix_core
from helix_core.plugin_system import create

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-4


def check(subject: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, run in CHECKS.items():
        try:
            found[name] = float(f"{run(subject):.2e}")
        except Exception as error:  # of any kind: the check's result is then what was said
            found[name] = f"{type(error).__name__}: {error}"[:200]
    return found


def main(words: list[str]) -> int:
    import ours

    results: dict[str, Any] = {
        "versions": f"helix {helix_core.__version__}",
        "backend": create("backend", "auto").name,
        "ours": {},
        "theirs": {},
    }
    for name in ours.available():
        if not words or name in words:
            results["ours"][name] = check(ours.Ours(name))
            print(name, results["ours"][name], flush=True)
    try:
        import theirs
    except ImportError as error:
        print(f"transformers' models are not checked: {error}", file=sys.stderr)
    else:
        results["versions"] += f", {theirs.version()}"
        for name in theirs.MODELS:
            if not words or name in words:
                results["theirs"][name] = check(theirs.Theirs(name))
                print(name, results["theirs"][name], flush=True)
    if not words:
        (ROOT / "benchmarks/results/correctness.json").write_text(json.dumps(results, indent=1) + "\n")
        (ROOT / "docs/correctness.md").write_text(page(results))
    wrong = [
        f"{layer}: {name}: {value}"
        for layer, found in results["ours"].items()
        for name, value in found.items()
        if not (isinstance(value, float) and value <= LIMIT)
    ]
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
