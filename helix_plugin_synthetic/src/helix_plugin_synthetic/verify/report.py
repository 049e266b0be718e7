"""A verification report: JSON for programs, a page with plots for people."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.durable import write_file
from helix_core.errors import DataError, UsageError
from helix_core.kinds.generator import Generator, Sample
from helix_plugin_synthetic.verify.check import Check
from helix_plugin_synthetic.verify.common import common_checks
from helix_plugin_synthetic.verify.round_trips import round_trips

ALPHA = 0.001
"""P(a report finds fault where there is none), over all of its p-values together (Holm, 1979)."""
JSON, PAGE = "report.json", "index.html"


@dataclass(frozen=True)
class Report:
    """The checks of a generator's samples and which of them failed."""

    generator: str
    options: dict[str, Any]
    seed: int
    n: int
    checks: list[Check]
    passed: list[bool | None]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return False not in self.passed

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": "helix-verification",
            "version": 1,
            "generator": self.generator,
            "options": self.options,
            "seed": self.seed,
            "samples": self.n,
            "ok": self.ok,
            "alpha": ALPHA,
            "checks": [
                {**check.as_dict(), "passed": passed} for check, passed in zip(self.checks, self.passed, strict=True)
            ],
        }


def verify(name: str, generator: Generator[Any], samples: list[Sample], *, seed: int, start: int = 0) -> Report:
    """Check samples `start` .. of a generator and a seed, whether just made or read from files."""
    if not samples:
        raise UsageError("there are no samples to verify")
    checks = common_checks(generator, samples, seed, start, np.random.default_rng(seed % 2**63))
    try:
        checks += round_trips(generator, samples, seed)
    except Exception as error:  # an estimator that breaks has met samples that are not this generator's
        checks.append(Check("round trips", ok=False, detail=f"{type(error).__name__}: {error}"))
    return Report(name, generator.config.model_dump(mode="json"), seed, len(samples), checks, judge(checks))


def judge(checks: list[Check]) -> list[bool | None]:
    """Whether each check passed; None for facts. P-values are judged together, by Holm's method."""
    passed = [check.ok for check in checks]
    ranked = sorted((c.p_value, i) for i, c in enumerate(checks) if c.p_value is not None and c.ok is None)
    holds = True
    for rank, (p, i) in enumerate(ranked):
        # Once one hypothesis stands, all with larger p stand.
        rejected = holds and p < ALPHA / (len(ranked) - rank)
        holds = rejected
        passed[i] = not rejected
    return passed


def write_report(report: Report, generator: Generator[Any], samples: list[Sample], folder: str | Path) -> None:
    """Write report.json, index.html and plots. Raises UsageError if the folder holds something else."""
    from helix_plugin_synthetic.verify.plots import plot_checks, plot_samples

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / JSON).exists():
            raise UsageError(f"{folder} is not empty and holds no report", hint="choose another folder")
        plots = [plot_samples(generator, samples, folder), plot_checks(report.checks, report.passed, folder)]
        write_file(folder / PAGE, _page(report, samples, [p for p in plots if p]).encode())
        write_file(folder / JSON, (json.dumps(report.as_dict(), indent=1) + "\n").encode())
    except OSError as error:
        raise DataError(f"cannot write the report to {folder}: {error.strerror or error}") from error


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
td.number { font-variant-numeric: tabular-nums } .failed { background: #fde0dd; font-weight: 600 } .fact { color: #777 }
img { max-width: 100% } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto } code { background: #f6f6f6 }
"""


def _page(report: Report, samples: list[Sample], plots: list[str]) -> str:
    rows = []
    for check, passed in zip(report.checks, report.passed, strict=True):
        interval = f"{check.low:.6g} to {check.high:.6g}" if check.low is not None and check.high is not None else ""
        cells = [
            check.name,
            _number(check.value),
            interval,
            _number(check.expected),
            _number(check.p_value),
            {True: "passed", False: "failed", None: "fact"}[passed],
            check.detail,
        ]
        kind = {True: "", False: "failed", None: "fact"}[passed]
        rows.append(
            f'<tr class="{kind}">' + "".join(f'<td class="number">{html.escape(c)}</td>' for c in cells) + "</tr>"
        )
    verdict = "Nothing is wrong." if report.ok else f"{report.passed.count(False)} of the checks failed."
    texts = [html.escape(str(v)) for s in samples[:3] for v in s.values() if isinstance(v, str)]
    options = html.escape(json.dumps(report.options, ensure_ascii=False))
    head = "".join(f"<th>{h}</th>" for h in ("check", "found", "99 % interval", "expected", "p", "verdict", ""))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(report.generator)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(report.generator)}</h1>"
        f"<p>{report.n:,} samples of seed {report.seed}. <b>{verdict}</b></p><p><code>{options}</code></p>"
        + "".join(f'<p><img src="{plot}" alt=""></p>' for plot in plots)
        + "".join(f"<pre>{text}</pre>" for text in texts[:6])
        + f"<table><tr>{head}</tr>{''.join(rows)}</table>"
        f"<p>P-values are judged together: a report finds fault where there is none once in {1 / ALPHA:,.0f} "
        "(Holm's method).</p></html>\n"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
