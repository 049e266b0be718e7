"""Pictures of samples and of checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from helix_core.kinds.generator import Generator, Sample
from helix_plugin_synthetic.verify.check import Check


def plot_samples(generator: Generator[Any], samples: list[Sample], folder: Path) -> str | None:
    """Draw the first samples; returns the file's name, or None if there is nothing to draw."""
    first = samples[0]
    if "image" in first:
        figure = _images(samples)
    elif "edges" in first:
        figure = _graphs(samples)
    elif "values" in first:
        figure = _series(samples)
    elif "inputs" in first:
        figure = _tokens(samples)
    else:
        return None
    figure.savefig(folder / "samples.png", dpi=110)
    return "samples.png"


def plot_checks(checks: list[Check], passed: list[bool | None], folder: Path) -> str | None:
    """Draw estimates beside what they estimate, and all p-values; returns the file's name."""
    both: list[tuple[Any, bool | None]] = list(zip(checks, passed, strict=True))
    estimates = [(c, ok) for c, ok in both if c.low is not None]
    tests = [(c, ok) for c, ok in both if c.p_value is not None]
    if not tests:
        return None
    figure = _figure(9, 1.2 + 0.32 * max(len(estimates), len(tests)))
    axes = figure.subplots(1, 2 if estimates else 1, squeeze=False)[0]
    colors = {True: "C0", False: "C3", None: "0.6"}
    if estimates:
        for row, (check, ok) in enumerate(reversed(estimates)):
            half = max((check.high - check.low) / 2, 1e-300)
            axes[0].errorbar((check.value - check.expected) / half, row, xerr=1.0, fmt="o", color=colors[ok], capsize=3)
        axes[0].set_yticks(range(len(estimates)), [c.name for c, _ in reversed(estimates)])
        axes[0].axvline(0, color="0.5", linewidth=0.8)
        axes[0].set(xlabel="found - expected, in half intervals of 99 %")
    right = axes[-1]
    for row, (check, ok) in enumerate(reversed(tests)):
        right.plot(max(check.p_value, 1e-12), row, "o", color=colors[ok])
    right.set_yticks(range(len(tests)), [c.name for c, _ in reversed(tests)])
    right.set(xscale="log", xlabel="p-value")
    right.axvline(1e-3 / len(tests), color="C3", linewidth=0.8, linestyle="--")
    right.set_xlim(right=1.6)
    figure.savefig(folder / "checks.png", dpi=110)
    return "checks.png"


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _images(samples: list[Sample]) -> Any:
    shown = samples[:12]
    figure = _figure(9, 1.6 * -(-len(shown) // 6) + 0.2)
    for axes, sample in zip(figure.subplots(-(-len(shown) // 6), 6, squeeze=False).ravel(), shown, strict=False):
        axes.imshow(sample["image"], cmap="gray", vmin=0, vmax=255)
        if "caption" in sample:
            axes.set_title(sample["caption"].replace(" on ", "\non ").replace(" in ", "\nin "), fontsize=6)
        elif "label" in sample:
            axes.set_title(f"label {sample['label']}", fontsize=8)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def _series(samples: list[Sample]) -> Any:
    shown = samples[:4]
    figure = _figure(9, 1.5 * len(shown))
    for axes, sample in zip(figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0], shown, strict=True):
        axes.plot(sample["values"], linewidth=0.8)
        if "regime" in sample:
            axes.twinx().plot(sample["regime"], color="C3", linewidth=0.8, drawstyle="steps-post")
        if "trend" in sample:
            axes.plot(sample["trend"], color="C3", linewidth=0.8)
    return figure


def _tokens(samples: list[Sample]) -> Any:
    shown = samples[:16]
    figure = _figure(9, 4.2)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, name in zip(panels, ("inputs", "targets"), strict=True):
        rows = np.stack([s[name] for s in shown]).astype(float)
        if name == "targets":
            rows[~np.stack([s["mask"] for s in shown])] = np.nan
        drawn = axes.imshow(rows, aspect="auto", interpolation="nearest", cmap="viridis")
        axes.set(ylabel="sample", title=name if name == "inputs" else "targets, where they are scored")
        figure.colorbar(drawn, ax=axes)
    return figure


def _graphs(samples: list[Sample]) -> Any:
    import networkx as nx

    shown = samples[:4]
    figure = _figure(9, 2.4)
    for axes, sample in zip(figure.subplots(1, 4).ravel(), shown, strict=False):
        graph = nx.Graph(sample["edges"].tolist())
        place = nx.spring_layout(graph, seed=0)
        color = [f"C{sample['label'][v] % 10}" for v in graph] if "label" in sample else "C0"
        nx.draw_networkx_edges(graph, place, ax=axes, width=0.3, edge_color="0.6")
        nx.draw_networkx_nodes(graph, place, ax=axes, node_size=8, node_color=color)
        axes.axis("off")
    return figure
