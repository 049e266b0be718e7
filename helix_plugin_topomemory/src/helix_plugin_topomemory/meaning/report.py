"""The report of an induction: JSON, and a page with its plots."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.errors import HelixError
from helix_plugin_lm.runs.run_folder import write_text
from helix_plugin_lm.storage.store import save_store
from helix_plugin_topomemory.links import State
from helix_plugin_topomemory.meaning.induction import Induction

COLOURS = {"U": "C1", "I": "C0", "S": "C2"}


def write_report(result: Induction, folder: Path) -> dict[str, Any]:
    """Write report.json, report.html and the links; what report.json holds.

    Raises HelixError if the folder cannot be written.
    """
    links = result.graph.links()
    bins = np.linspace(0, 1, 21)
    last = result.epochs[-1]
    report = {
        "recipe": result.recipe.model_dump(mode="json"),
        "epochs": result.epochs,
        "transfer": result.transfer,
        "stability": {
            "bins": bins.tolist(),
            **{s.name: np.histogram(links.stability[links.state == s], bins)[0].tolist() for s in list(State)[1:]},
        },
        "summary": {
            "phases": "".join(epoch["phase"] for epoch in result.epochs),
            "bits_per_byte_without_memory": last["bits_off"],
            "bits_per_byte_with_memory": last["bits"],
            "hit_rate": last["hit_rate"],
            **{f"links_{name}": last["links"][name] for name in COLOURS},
        },
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HelixError(f"cannot make {folder}: {error.strerror or error}") from error
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(folder / "report.html", _page(report))
    save_store(folder / "links", {"links": result.graph.arrays()}, {"memory": "links"})
    return report


def plot_report(report: dict[str, Any]) -> bytes:
    """The four plots of a report as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    (states, moves), (distribution, benefit) = figure.subplots(2, 2)
    epochs = report["epochs"]
    x = np.arange(1, len(epochs) + 1)
    for name, colour in COLOURS.items():
        states.plot(x, [epoch["links"][name] for epoch in epochs], "o-", color=colour, label=name)
    states.set(title="links per state", ylabel="links", ylim=(0, None))
    names = sorted({move for epoch in epochs for move in epoch["moves"]} - {"candidate>removed"})
    for name in names:
        moves.plot(x, [epoch["moves"].get(name, 0) for epoch in epochs], ".-", label=name)
    moves.set(title="transitions per epoch", yscale="symlog")
    bins = np.array(report["stability"]["bins"])
    bottom = np.zeros(len(bins) - 1)
    for name, colour in COLOURS.items():
        counts = np.array(report["stability"][name])
        distribution.bar(bins[:-1], counts, np.diff(bins), bottom, align="edge", color=colour, label=name)
        bottom += counts
    distribution.set(title="stability at the end", xlabel="S", ylabel="links")
    benefit.plot(x, [epoch["bits"] for epoch in epochs], "o-", color="C3", label="bits/byte from links")
    benefit.plot(x, [epoch["bits_off"] for epoch in epochs], "--", color="0.5", label="bits/byte without")
    benefit.set(title="held out", ylabel="bits per byte", ylim=(0, None))
    share = benefit.twinx()
    share.plot(x, [100 * epoch["hit_rate"] for epoch in epochs], "s-", color="C4", label="hit rate, %")
    share.set(ylabel="hit rate, %", ylim=(0, 100))
    for axes in (states, moves, benefit):
        axes.set_xticks(x, [f"{i}\n{epoch['phase']}" for i, epoch in zip(x, epochs, strict=True)])
    for axes in (states, moves, distribution):
        axes.legend(fontsize="x-small")
    lines = [*benefit.get_lines(), *share.get_lines()]
    benefit.legend(lines, [str(line.get_label()) for line in lines], fontsize="x-small", loc="lower left")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=80)
    return out.getvalue()


def _page(report: dict[str, Any]) -> str:
    from helix_plugin_training.plot import can_plot

    summary = "".join(f"<tr><td>{html.escape(k)}<td>{v}" for k, v in report["summary"].items())
    if can_plot():
        picture = base64.b64encode(plot_report(report)).decode()
        plots = f'<img alt="links, transitions, stability, bits per byte" src="data:image/png;base64,{picture}">'
    else:
        plots = "<p>Plots need matplotlib: pip install 'helix-plugin-training[plot]'"
    rows = "".join(
        f"<tr><td>{i}<td>{e['phase']}<td>{e['links']['U']:,}<td>{e['links']['I']:,}<td>{e['links']['S']:,}"
        f"<td>{e['new_links']:.3f}<td>{e['jaccard']:.3f}<td>{e['bits']:.3f}<td>{e['hit_rate']:.1%}<td>{e['ends'] or ''}"
        for i, e in enumerate(report["epochs"], 1)
    )
    head = (
        "<tr><th>epoch<th>phase<th>U<th>I<th>S<th>new links<th>Jaccard of S<th>bits/byte<th>hit rate<th>phase ends by"
    )
    title = html.escape(report["recipe"]["name"])
    style = "body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .8em;text-align:right}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"<h1>{title}</h1><table>{summary}</table>{plots}<table>{head}{rows}</table>\n"
    )
