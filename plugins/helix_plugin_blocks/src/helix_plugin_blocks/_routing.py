"""Who computes a step of a mixture of experts: chosen by a gate, by the experts themselves, or by the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from helix_core.ops import OpTable, device_of

Array = Any


def by_gate(xp: Any, gates: Array, top_k: int, normalize: bool) -> tuple[Array, Array]:
    """gates (N, E) -> the top_k experts of each step (N, top_k) and their weights."""
    chosen = xp.argsort(-gates, axis=-1, stable=True)[:, :top_k]
    weights = xp.take_along_axis(gates, chosen, axis=-1)
    return chosen, weights / xp.sum(weights, axis=-1, keepdims=True) if normalize else weights


def by_experts(
    F: OpTable, gates: Array, top_k: int, batch: int, reset: Array | None, lengths: Array | None
) -> tuple[Array, Array]:
    """Every expert takes the steps with its largest gates: of a document of n steps, the n top_k / E best, rounded up.

    gates (N, E), N = batch L -> experts of each step (N, M), E for none, and their weights, 0 there. M is what the step
    that most experts took has, or E where numbers are not known.
    """
    xp = F.xp
    count, experts = gates.shape
    length = count // batch
    steps = xp.arange(length, dtype=xp.int64, device=device_of(gates))[None, :]
    document = xp.zeros((batch, length), dtype=xp.int64, device=device_of(gates))
    if reset is not None:
        document = document + xp.cumulative_sum(xp.astype(reset, xp.int64), axis=1)
    if lengths is not None:  # padding is a group of its own at the end of a row
        document = xp.where(steps < lengths[:, None], document, xp.full_like(document, length + 1))
    rows = xp.arange(batch, dtype=xp.int64, device=device_of(gates))[:, None]
    # Numbers of documents rise along the flattened batch, so that each of them is a range.
    group = xp.reshape(document + rows * (length + 2), (-1,))
    first = xp.searchsorted(group, group, side="left")
    size = xp.searchsorted(group, group, side="right") - first
    takes = (size * top_k + experts - 1) // experts
    if lengths is not None:
        takes = xp.where(xp.reshape(document, (-1,)) <= length, takes, xp.zeros_like(takes))
    # Sorted by document and then by gate, a step's place within its document is its rank.
    best = xp.argsort(-gates, axis=0, stable=True)
    groups = xp.take_along_axis(xp.broadcast_to(group[:, None], gates.shape), best, axis=0)
    grouped = xp.argsort(groups, axis=0, stable=True)
    rank = xp.argsort(xp.take_along_axis(best, grouped, axis=0), axis=0, stable=True) - first[:, None]
    taken = rank < takes[:, None]
    most = F.concrete(xp.max(xp.sum(xp.astype(taken, xp.int64), axis=1)))
    chosen = xp.argsort(xp.astype(xp.logical_not(taken), xp.int64), axis=1, stable=True)
    chosen = chosen[:, : experts if most is None else most]
    valid = xp.take_along_axis(taken, chosen, axis=1)
    weights = xp.take_along_axis(gates, chosen, axis=1)
    return xp.where(valid, chosen, xp.full_like(chosen, experts)), xp.where(valid, weights, xp.zeros_like(weights))


class Motifs:
    """Runs of tokens, and the longest of them that ends at a step.

    The runs are a trie, kept as a sorted list of edges: `edges` are parent * base + token, `nodes` where they lead, and
    `expert` (by node) is that of the run that ends there, -1 if none does. Node 0 is nowhere, 1 the root.
    """

    def __init__(self, runs: Sequence[Sequence[int]], experts: int) -> None:
        self.experts = experts
        self.longest = max(map(len, runs), default=1)
        self.base = max((token for run in runs for token in run), default=0) + 2
        children: dict[tuple[int, int], int] = {}
        ends = [-1, -1]
        for i, run in enumerate(runs):
            node = 1
            for token in run:
                node = children.setdefault((node, token), len(ends))
                if node == len(ends):
                    ends.append(-1)
            ends[node] = i % experts
        edges = sorted((parent * self.base + token, node) for (parent, token), node in children.items())
        self.edges = np.array([edge for edge, _ in edges] or [-1], dtype=np.int64)
        self.nodes = np.array([node for _, node in edges] or [0], dtype=np.int64)
        self.expert = np.array(ends, dtype=np.int64)

    def route(self, F: OpTable, tokens: Array, before: Array, reset: Array | None) -> Array:
        """The expert of each step: tokens (B, L), those before them (B, longest - 1), -1 for none -> (B, L).

        That of the longest motif which ends there within the document; without one, a hash of the token.
        """
        xp = F.xp
        edges, nodes, expert = (F.asarray(a) for a in (self.edges, self.nodes, self.expert))
        length = tokens.shape[1]
        tokens = xp.astype(tokens, edges.dtype)
        # Small enough for 32 bits, which is all that some backends have.
        found = ((tokens % 32749) * 40503 // 256) % self.experts
        line = xp.concat([xp.astype(before, edges.dtype), tokens], axis=1)
        unknown = xp.full_like(line, self.base - 1)
        line = xp.where(xp.logical_and(line >= 0, line < self.base - 1), line, unknown)
        starts = None
        if reset is not None:
            starts = xp.concat([xp.zeros_like(xp.astype(before, xp.bool)), reset], axis=1)
        at = xp.ones_like(line)  # the root: what a run of no tokens leads to
        for taps in range(1, self.longest + 1):
            if taps > 1:
                at = xp.concat([xp.zeros_like(at[:, :1]), at[:, :-1]], axis=1)
                if starts is not None:
                    at = xp.where(starts, xp.zeros_like(at), at)
            key = at * self.base + line
            place = xp.searchsorted(edges, xp.reshape(key, (-1,)))
            place = xp.reshape(xp.where(place < len(self.edges), place, xp.zeros_like(place)), key.shape)
            hit = _at(xp, edges, place) == key
            at = xp.where(hit, _at(xp, nodes, place), xp.zeros_like(at))
            ending = _at(xp, expert, at)[:, line.shape[1] - length :]
            found = xp.where(ending >= 0, ending, found)
        return found


def _at(xp: Any, table: Array, index: Array) -> Array:
    return xp.reshape(xp.take(table, xp.reshape(index, (-1,)), axis=0), index.shape)


def last_tokens(xp: Any, before: Array, tokens: Array, reset: Array | None, lengths: Array | None) -> Array:
    """The last tokens of each row's document after a call: before (B, S), tokens (B, L) -> (B, S), -1 for none."""
    batch, kept = before.shape
    length = tokens.shape[1]
    line = xp.concat([before, xp.astype(tokens, before.dtype)], axis=1)
    steps = xp.arange(kept + length, dtype=xp.int64, device=device_of(tokens))[None, :]
    ends = xp.full((batch, 1), length, dtype=xp.int64, device=device_of(tokens))
    if lengths is not None:
        ends = xp.astype(lengths, xp.int64)[:, None]
    if reset is not None:
        at = steps[:, kept:]
        started = xp.logical_and(reset, at < ends + kept)
        begin = xp.max(xp.where(started, at, xp.zeros_like(at)), axis=1, keepdims=True)
        line = xp.where(steps < begin, xp.full_like(line, -1), line)
    return xp.take_along_axis(line, ends + steps[:, :kept], axis=1)
