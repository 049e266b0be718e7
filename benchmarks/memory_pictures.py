"""Draws docs/memory.png: links that grow and are forgotten, hit rates, bits/byte, from runs and recorded results.

    python benchmarks/memory_pictures.py [REPORT]

With the folder of a `helix meaning` report, its plots become docs/meaning.png.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from helix_plugin_topomemory.links import LinkGraph, State
from helix_plugin_topomemory.meaning.report import plot_report
from helix_plugin_topomemory.topology import periodicity

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


def main() -> None:
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    (links, cache), (language, cycles) = figure.subplots(2, 2)
    _links(links)
    _cache(cache)
    _language(language)
    _cycles(cycles)
    figure.savefig(ROOT / "docs/memory.png", dpi=70)
    if len(sys.argv) > 1:
        report = json.loads((Path(sys.argv[1]) / "report.json").read_text())
        (ROOT / "docs/meaning.png").write_bytes(plot_report(report))


def _links(axes) -> None:
    """Thirty planted associations; ten of them stop at tick 20."""
    rng = np.random.default_rng(0)
    pairs, graph = rng.permutation(300)[:60].reshape(30, 2), LinkGraph()
    kept, gone, noise = [], [], []
    for tick in range(70):
        planted = rng.random(6000) < 0.15
        chosen = (pairs if tick < 20 else pairs[10:])[rng.integers(30 if tick < 20 else 20, size=6000)]
        both = np.stack([np.where(planted, chosen[:, 0], rng.integers(300, size=6000)), chosen[:, 1]], 1)
        both[~planted, 1] = -1
        graph.observe_sequence(both[both >= 0], 2)
        graph.advance()
        s, _ = graph.find(pairs[:, 0], pairs[:, 1])
        gone.append(s[:10])
        kept.append(s[10:])
        noise.append(len(graph.links(State.S)) - int((graph.find(pairs[:, 0], pairs[:, 1])[1] == State.S).sum()))
    axes.plot(kept, color="C2", linewidth=0.8)
    axes.plot(gone, color="C3", linewidth=0.8)
    for value in (graph.config.theta_low, graph.config.theta_high):
        axes.axhline(value, color="0.6", linestyle=":")
    axes.axvline(20, color="0.6", linestyle="--")
    axes.set(title=f"planted links; red: gone after tick 20; false S-links: {max(noise)}", xlabel="tick", ylabel="S")


def _cache(axes) -> None:
    rows = [row for row in json.loads((RESULTS / "memory-cache.json").read_text())["rows"] if row["capacity"] == 1000]
    names = ("lru", "lfu", "arc", "tinylfu", "stability")
    for i, name in enumerate(names):
        axes.bar(np.arange(len(rows)) + 0.16 * (i - 2), [row[name] for row in rows], 0.16, label=name)
    axes.set_xticks(range(len(rows)), [row["trace"] for row in rows], fontsize=8)
    axes.set(title="cache of 1000 of 20,000 keys", ylabel="hit rate")
    axes.legend(fontsize="x-small", ncols=2)


def _language(axes) -> None:
    rows = json.loads((RESULTS / "memory-language.json").read_text())["rows"]
    for i, name in enumerate(("without", "stored", "online", "both")):
        axes.bar(np.arange(len(rows)) + 0.2 * (i - 1.5), [row[name] for row in rows], 0.2, label=name)
    axes.set_xticks(range(len(rows)), [row["corpus"] for row in rows])
    axes.set(title="held out, with and without memory", ylabel="bits per byte")
    axes.legend(fontsize="x-small")


def _cycles(axes) -> None:
    t, scores = np.arange(400), {"noisy sine": [], "random walk": [], "white noise": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores["noisy sine"].append(periodicity(np.sin(2 * np.pi * t / 40) + 0.3 * rng.normal(size=400), 40))
        scores["random walk"].append(periodicity(np.cumsum(rng.normal(size=400)), 40))
        scores["white noise"].append(periodicity(rng.normal(size=400), 40))
    axes.boxplot(list(scores.values()), tick_labels=list(scores))
    axes.set(title="periodicity (H₁ persistence), 20 seeds each", ylim=(0, 1))


if __name__ == "__main__":
    main()
