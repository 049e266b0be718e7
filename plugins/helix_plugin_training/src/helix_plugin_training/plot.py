"""The picture of a run's losses."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helix_plugin_lm.runs.run_folder import write_bytes


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_losses(
    lines: Sequence[dict[str, Any]],
    path: Path,
    *,
    title: str,
    unit: str = "byte",
    gzip_bits_per_byte: float | None = None,
) -> None:
    """Draw bits per byte (or token) over training data: every step, a running mean, held-out points, gzip's line.

    A task's accuracy is drawn below. Raises CheckpointError if the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def points(key: str) -> list[tuple[float, float]]:
        pairs = [(line.get(f"{unit}s"), line.get(key)) for line in lines]
        return [(x / 1e6, y) for x, y in pairs if isinstance(x, (int, float)) and isinstance(y, (int, float))]

    accuracy = points("val_accuracy")
    figure = Figure(figsize=(8, 6 if accuracy else 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(2 if accuracy else 1, sharex=True, squeeze=False)[:, 0]
    axes = panels[0]
    train, held_out = points(f"bits_per_{unit}"), points(f"val_bits_per_{unit}")
    if train:
        x, y = zip(*train, strict=True)
        axes.plot(x, y, color="0.8", linewidth=0.8, label="training, each step")
        axes.plot(x, _smooth(y), color="C0", label="training, running mean")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color="C3", label="held out")
    if gzip_bits_per_byte is not None:
        axes.axhline(gzip_bits_per_byte, color="C2", linestyle="--", label=f"gzip -9: {gzip_bits_per_byte:.2f}")
    axes.set(ylabel=f"bits per {unit}", title=title)
    highest = max((y for _, y in train), default=8.0) + 0.3
    axes.set_ylim(bottom=0, top=min(8.5, highest) if unit == "byte" else highest)
    axes.legend()
    if accuracy:
        panels[1].plot(*zip(*accuracy, strict=True), "o-", color="C3")
        panels[1].set(ylabel="accuracy, held out", ylim=(0, 1.02))
    panels[-1].set_xlabel(f"training {unit}s (millions)")
    for panel in panels:
        panel.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(path, picture.getvalue())


def _smooth(values: Sequence[float], factor: float = 0.95) -> list[float]:
    """Exponential mean without start-up bias."""
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total = factor * total + (1 - factor) * value
        weight = factor * weight + (1 - factor)
        smoothed.append(total / weight)
    return smoothed
