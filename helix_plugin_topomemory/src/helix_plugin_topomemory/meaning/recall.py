"""Prediction from links alone: what the contexts of a place say about the code behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helix_plugin_topomemory.links import LinkGraph, State
from helix_plugin_topomemory.meaning.contexts import Contexts


@dataclass(frozen=True)
class Recall:
    """How links predict a text.

    bits      bits per code: the links' shares of each context, from short contexts to long ones; what a context's links
              leave open goes to the shorter one (Witten and Bell, 1991)
    bits_off  bits per code without memory: the codes' frequencies alone
    covered   share of places with a link out of one of their contexts
    hit_rate  share of places whose longest such context has its strongest link at what follows
    """

    bits: float
    bits_off: float
    covered: float
    hit_rate: float


def recall(graph: LinkGraph, contexts: Contexts, codes: np.ndarray, frequencies: np.ndarray, least: State) -> Recall:
    """Score codes (L,) with links of at least a state; frequencies (alphabet,) are counts of codes seen."""
    nodes, targets = contexts.pairs(codes)
    links = graph.links(least)
    size = contexts.alphabet + 2**contexts.bits
    total = np.bincount(links.a, links.count, minlength=size)
    kinds = np.bincount(links.a, minlength=size)
    strongest = np.full(size, -1, np.int64)
    order = np.argsort(links.count * links.stability, kind="stable")
    strongest[links.a[order]] = links.b[order]  # the last one written is the strongest
    p = (frequencies[targets] + 1) / (frequencies.sum() + contexts.alphabet)
    off = -np.log2(p)
    guess = np.full(len(targets), -1, np.int64)
    for row in nodes:
        known = (row >= 0) & (kinds[row] > 0)
        here, behind = row[known], targets[known]
        _, state, count = graph.find(here, behind, counts=True)
        seen = np.where(state >= least, count, 0.0)
        all_seen = np.maximum(graph.sources(here), total[here])
        p[known] = (seen + (all_seen - total[here] + kinds[here]) * p[known]) / (all_seen + kinds[here])
        guess[known] = strongest[here]
    return Recall(
        float(-np.log2(p).mean()), float(off.mean()), float(np.mean(guess >= 0)), float(np.mean(guess == targets))
    )
