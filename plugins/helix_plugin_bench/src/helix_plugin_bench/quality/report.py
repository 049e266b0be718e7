"""Tables and a plot of results; what was not run is not there."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Result = dict[str, Any]

TITLES = {
    "selective-copying": ("Selective copying", "context 128, 8 tokens of 14; chance 7 %"),
    "induction-heads": ("Induction heads", "trained at length 256; chance 7 %"),
    "parity": ("Parity", "trained at length 64; chance 50 %"),
    "mqar": ("Associative recall (MQAR)", "accuracy at the queries"),
    "digits": ("Pixel-sequence digits", "360 images of 1797 held out; chance 10 %"),
    "listops": ("ListOps", "length 64, depth 4; chance 10 %"),
    "stdlib": ("Language modelling", "bits/byte on held-out files of the standard library"),
}


def by_task(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results in the order of the tasks, the best first."""
    tasks = [*TITLES, *sorted({r["task"] for r in results} - TITLES.keys())]
    found = {task: [r for r in results if r["task"] == task] for task in tasks}
    return {task: sorted(rows, key=_rank) for task, rows in found.items() if rows}


def _rank(result: Result) -> tuple[Any, ...]:
    score = -result["accuracy"] if "accuracy" in result else result["bits_per_byte"]
    return (*_numbers(result["setting"]), score, result["model"])


def _numbers(setting: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", setting)]


def markdown(results: Sequence[Result]) -> str:
    """A table for each task."""
    parts = []
    for task, rows in by_task(results).items():
        title, note = TITLES.get(task, (task, ""))
        parts.append(f"### {title}\n\n{note[:1].upper() + note[1:]}.\n\n{_table(rows)}")
        if any("at_length" in row for row in rows):
            parts.append("Accuracy at other lengths, without further training:\n\n" + _lengths(rows))
        if task == "mqar":
            parts.append("Accuracy by the number of pairs and the width:\n\n" + _settings(rows))
    return "\n\n".join(parts)


def _table(rows: Sequence[Result]) -> str:
    setting = ["setting"] if any(row["setting"] for row in rows) else []
    language = "bits_per_byte" in rows[0]
    score = ["bits/byte", "gzip -9"] if language else ["accuracy"]
    head = [*setting, "model", *score, "parameters", "steps x batch", "lr", "seed", "time", "CPU time"]
    lines = [_line(head), "|---" * len(head) + "|"]
    for r in rows:
        if language:
            found = [f"{r['bits_per_byte']:.3f}", f"{r['gzip_bits_per_byte']:.3f}"]
        else:
            found = [f"{r['accuracy']:.1%}"]
        how = [f"{r['parameters']:,}", f"{r['steps']} x {r['batch_size']}", f"{r['rate']:g}", str(r["seed"])]
        times = [f"{r[key] / 60:.1f} min" for key in ("seconds", "cpu_seconds")]
        lines.append(_line([*([r["setting"]] if setting else []), r["model"], *found, *how, *times]))
    return "\n".join(lines)


def _lengths(rows: Sequence[Result]) -> str:
    lines = [
        (row["model"], {int(n): found["accuracy"] for n, found in row["at_length"].items()})
        for row in rows
        if "at_length" in row
    ]
    lengths = sorted({n for _, at in lines for n in at})
    return _grid({n: f"{n:,}" for n in lengths}, lines)


def _settings(rows: Sequence[Result]) -> str:
    """A line for each model, a column for each setting; the mean over seeds."""
    settings = sorted({row["setting"] for row in rows}, key=_numbers)
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["model"], {}).setdefault(row["setting"], []).append(row["accuracy"])
    means = [(model, {setting: fmean(found) for setting, found in own.items()}) for model, own in scores.items()]
    means.sort(key=lambda line: -fmean(line[1].values()))
    return _grid({setting: setting for setting in settings}, means)


def _grid(columns: Mapping[Any, str], lines: Sequence[tuple[str, Mapping[Any, float]]]) -> str:
    """Accuracies of models by columns, each with its title; blank where there is none."""
    text = [_line(["model", *columns.values()]), "|---" * (len(columns) + 1) + "|"]
    for model, at in lines:
        text.append(_line([model, *(f"{at[c]:.1%}" if c in at else "" for c in columns)]))
    return "\n".join(text)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def picture(results: Sequence[Result]) -> bytes:
    """A PNG with a panel for each task that has results."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = by_task(results)
    columns = min(3, max(1, len(tasks)))
    lines = max(1, -(-len(tasks) // columns))
    figure = Figure(figsize=(4.2 * columns, 3.1 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, (task, rows) in zip(panels, tasks.items(), strict=False):
        title, note = TITLES.get(task, (task, ""))
        panel.set_title(f"{title}\n{note}", fontsize=8)
        (_curves if any("at_length" in row for row in rows) else _widths if task == "mqar" else _bars)(panel, rows)
        panel.tick_params(labelsize=8)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _bars(panel: Any, rows: Sequence[Result]) -> None:
    scores = [row.get("accuracy", row.get("bits_per_byte")) for row in rows]
    panel.bar([f"{row['model']}" for row in rows], scores, color="C0")
    for i, score in enumerate(scores):
        panel.annotate(f"{score:.3f}", (i, score), ha="center", va="bottom", fontsize=7)
    if "gzip_bits_per_byte" in rows[0]:
        panel.axhline(rows[0]["gzip_bits_per_byte"], color="0.5", linestyle=":", label="gzip -9")
        panel.legend(fontsize=7)
    panel.margins(y=0.15)
    for label in panel.get_xticklabels():
        label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")


def _curves(panel: Any, rows: Sequence[Result]) -> None:
    for row in rows:
        at = row.get("at_length", {})
        panel.plot([int(n) for n in at], [found["accuracy"] for found in at.values()], ".-", label=row["model"])
    panel.set_xscale("log", base=2)
    panel.set(ylim=(0, 1.03), xlabel="length")
    panel.legend(fontsize=7)


def _widths(panel: Any, rows: Sequence[Result]) -> None:
    """Accuracy over the width: a colour for each model, a style of line for each number of pairs."""
    from matplotlib.lines import Line2D

    models = list(dict.fromkeys(row["model"] for row in sorted(rows, key=lambda row: -row["accuracy"])))
    pairs = sorted({_numbers(row["setting"])[0] for row in rows})
    colours = {model: f"C{i}" for i, model in enumerate(models)}
    styles: dict[int, Any] = dict(zip(pairs, itertools.cycle(("-", "--", ":", "-.")), strict=False))
    for model, count in itertools.product(models, pairs):
        own = [row for row in rows if (row["model"], _numbers(row["setting"])[0]) == (model, count)]
        points = sorted((row["d_model"], row["accuracy"]) for row in own)
        if points:
            panel.plot(*zip(*points, strict=True), marker=".", color=colours[model], linestyle=styles[count])
    keys = [Line2D([], [], color=colours[model], label=model) for model in models]
    keys += [Line2D([], [], color="0.3", linestyle=styles[count], label=f"{count} pairs") for count in pairs]
    panel.set_xscale("log", base=2)
    panel.set_xticks(sorted({row["d_model"] for row in rows}))
    panel.xaxis.set_major_formatter("{x:.0f}")
    panel.set(ylim=(0, 1.03), xlabel="d_model")
    panel.legend(handles=keys, fontsize=6)
