"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import CommandDescriptor, GeneratorDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"

_TOKENS = (
    ("markov", "Markov", "a Markov chain of any order with a random transition matrix"),
    ("zipf", "Zipf", "independent tokens with Zipf-Mandelbrot frequencies"),
    ("pcfg", "PCFG", "sentences of a random probabilistic context-free grammar"),
    ("copying", "Copying", "repeat a string after a gap (Hochreiter and Schmidhuber, 1997; Arjovsky et al., 2016)"),
    ("selective-copying", "SelectiveCopying", "repeat tokens scattered among noise, in order (Gu and Dao, 2023)"),
    ("induction-heads", "InductionHeads", "recall what followed a special token (Olsson et al., 2022)"),
    ("associative-recall", "AssociativeRecall", "multi-query associative recall, MQAR (Arora et al., 2023)"),
    ("listops", "ListOps", "evaluate nested lists of MAX, MIN, MED and SM (Nangia and Bowman, 2018)"),
    ("dyck", "Dyck", "name the bracket that must be closed next, Dyck-n of bounded depth (Hewitt et al., 2020)"),
    ("parity", "Parity", "keep a sum modulo a number, 2 for parity (Grazzi et al., 2024)"),
    ("modular-arithmetic", "ModularArithmetic", "evaluate sums and products modulo a number (Delétang et al., 2023)"),
)

_OTHERS = (
    ("trend-seasonality", "series", "TrendSeasonality", "a series of trend, seasons and noise"),
    ("arma", "series", "ARMA", "an ARMA or ARIMA process"),
    ("power-law-noise", "series", "PowerLawNoise", "1/f^alpha noise: white, pink, red and between"),
    ("regime-shifts", "series", "RegimeShifts", "a series whose level jumps between regimes, which are labelled"),
    ("shapes", "images", "Shapes", "images of a circle, triangle, square or hexagon, labelled"),
    ("textures", "images", "Textures", "images of gratings, checkerboards and noise, labelled"),
    ("fractals", "images", "Fractals", "images of self-similar sets of known dimension, labelled"),
    ("erdos-renyi", "graphs", "ErdosRenyi", "graphs whose every pair is joined with one probability"),
    ("barabasi-albert", "graphs", "BarabasiAlbert", "graphs grown by preferential attachment"),
    ("watts-strogatz", "graphs", "WattsStrogatz", "small-world graphs: a ring with shortcuts"),
    ("stochastic-block", "graphs", "StochasticBlock", "graphs of communities, labelled, with features that tell them"),
    ("grammar-text", "text", "GrammarText", "sentences of a grammar of your own, or of a small English"),
    ("templates", "text", "Templates", "templates with slots filled, and what with"),
    ("scenes", "paired", "Scenes", "an image, a caption and a sound of one shared latent"),
)


@hookimpl
def helix_generators() -> Sequence[GeneratorDescriptor]:
    return [
        *(_describe(name, f"sequences.{name}", cls, summary, ("tokens",)) for name, cls, summary in _TOKENS),
        *(_describe(name, f"{group}.{name}", cls, summary) for name, group, cls, summary in _OTHERS),
    ]


@hookimpl
def helix_commands() -> Sequence[CommandDescriptor]:
    return [
        CommandDescriptor(
            name="data",
            target="helix_plugin_synthetic.commands.data:command",
            summary="Generate synthetic data, verify it.",
        )
    ]


def _describe(name: str, module: str, cls: str, summary: str, provides: tuple[str, ...] = ()) -> GeneratorDescriptor:
    path = f"helix_plugin_synthetic.{module.replace('-', '_')}"
    return GeneratorDescriptor(
        name=name, target=f"{path}:{cls}", config=f"{path}:{cls}Config", summary=summary, provides=provides
    )
