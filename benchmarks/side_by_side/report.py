"""Rows of results from samples, and the table that a page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from side_by_side.measure import Samples
from side_by_side.row import Row

Result = dict[str, Any]


def results(row: Row, found: Mapping[str, Samples], rates: Mapping[str, float]) -> list[Result]:
    """One result for each peer that has a target, or for the limit alone."""
    ours = found["ours"]
    if ours.missing is not None:
        return [{"work": row.work, "peer": None, "not_run": ours.missing}]
    here = {name: samples for name, samples in found.items() if name != "ours" and samples.missing is None}
    shared: Result = {
        "ours_s": ours.median,
        "peak_rss_mib": round(ours.peak, 1),
        "extra_mib": round(ours.extra, 1),
        "quiet": ours.quiet and all(s.quiet for s in here.values()),
        "samples": ours.count,
        "processes_s": ours.medians,
        "waited": round(ours.waited, 2),
    }
    if row.limit is not None:
        seconds = row.limit.at(rates)
        shared |= {
            "limit_s": seconds,
            "limit_fraction": round(seconds / ours.median, 4),
            "limit_target": row.limit_target,
        }
    table: list[Result] = []
    for name, target in row.targets.items():
        peer = min(here, key=lambda n: here[n].median) if name == "best" and here else name
        if peer not in here:
            why = found[peer].missing if peer in found else "no peer could run"
            table.append({"work": row.work, "peer": peer, "target": target, "not_run": why, **shared})
            continue
        theirs = here[peer]
        table.append(
            {
                "work": row.work,
                "peer": peer,
                "peer_s": theirs.median,
                "ratio": round(theirs.median / ours.median, 3),
                "target": target,
                "error": theirs.error,
                "peer_extra_mib": round(theirs.extra, 1),
                "peer_processes_s": theirs.medians,
                "peer_waited": round(theirs.waited, 2),
                **shared,
                **({"others_s": {n: s.median for n, s in here.items() if n != peer}} if name == "best" else {}),
            }
        )
    for name, target in row.memory.items():
        if name in here:
            ratio = here[name].extra / max(ours.extra, 0.1)
            table.append(
                {
                    "work": f"{row.work}: peak extra memory",
                    "peer": name,
                    "peer_s": here[name].median,
                    "ratio": round(ratio, 3),
                    "target": target,
                    "peer_extra_mib": round(here[name].extra, 1),
                    **shared,
                }
            )
    return table or [{"work": row.work, "peer": None, "peer_s": None, "ratio": None, "target": None, **shared}]


def met(result: Result) -> bool | None:
    """Whether a result reaches its target and its limit's; None if it has neither or was not run."""
    verdicts = []
    if result.get("ratio") is not None and result.get("target") is not None:
        verdicts.append(result["ratio"] >= result["target"])
    if result.get("limit_target") is not None and "memory" not in result["work"]:
        verdicts.append(result["limit_fraction"] >= result["limit_target"])
    return all(verdicts) if verdicts else None


def markdown(table: Sequence[Result]) -> str:
    """A table for people."""
    lines = [
        "| work | ours | peer | peer's | ratio | target | of the limit | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in table:
        if "not_run" in r:
            lines.append(
                f"| {r['work']} | | {r.get('peer') or ''} | | | {r.get('target') or ''} | | not run: {r['not_run']} |"
            )
            continue
        memory = r["work"].endswith("memory")
        ours = f"{r['extra_mib']:.0f} MiB" if memory else time_text(r["ours_s"])
        theirs = (f"{r['peer_extra_mib']:.0f} MiB" if memory else time_text(r["peer_s"])) if r["peer"] else ""
        fraction = ""
        if r.get("limit_fraction") is not None and not memory:
            fraction = f"{r['limit_fraction']:.0%}" + (f" ({r['limit_target']:.0%})" if r["limit_target"] else "")
        verdict = {True: "yes", False: "**no**", None: ""}[met(r)] + ("" if r["quiet"] else " (busy machine)")
        ratio = f"{r['ratio']:.2f}x" if r["ratio"] is not None else ""
        target = f"{r['target']:g}x" if r["target"] is not None else ""
        lines.append(
            f"| {r['work']} | {ours} | {r['peer'] or ''} | {theirs} | {ratio} | {target} | {fraction} | {verdict} |"
        )
    return "\n".join(lines)


def time_text(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
