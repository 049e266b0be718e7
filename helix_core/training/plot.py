"""The picture of a run's losses."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_losses(
    lines: Sequence[dict[str, Any]], path: Path, *, title: str, gzip_bits_per_byte: float | None = None
) -> None:
    """Draw bits/byte over training bytes: every step, a running mean, held-out points, and gzip's line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    train = [(line["bytes"] / 1e6, line["bits_per_byte"]) for line in lines if "bits_per_byte" in line]
    held_out = [(line["bytes"] / 1e6, line["val_bits_per_byte"]) for line in lines if "val_bits_per_byte" in line]
    if train:
        x, y = zip(*train, strict=True)
        axes.plot(x, y, color="0.8", linewidth=0.8, label="training, each step")
        axes.plot(x, _smooth(y), color="C0", label="training, running mean")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color="C3", label="held out")
    if gzip_bits_per_byte is not None:
        axes.axhline(gzip_bits_per_byte, color="C2", linestyle="--", label=f"gzip -9: {gzip_bits_per_byte:.2f}")
    axes.set(xlabel="training bytes (millions)", ylabel="bits per byte", title=title)
    axes.set_ylim(bottom=0, top=min(8.5, max((y for _, y in train), default=8.0) + 0.3))
    axes.grid(alpha=0.3)
    axes.legend()
    aside = path.with_name(f".{path.name}")
    figure.savefig(aside, format="png", dpi=120)
    aside.replace(path)


def _smooth(values: Sequence[float], factor: float = 0.95) -> list[float]:
    """Exponential mean without start-up bias."""
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total = factor * total + (1 - factor) * value
        weight = factor * weight + (1 - factor)
        smoothed.append(total / weight)
    return smoothed
