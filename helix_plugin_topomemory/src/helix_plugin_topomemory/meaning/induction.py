"""The three phases: A makes links, B lets them consolidate, C lives on what they recall."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from helix_plugin_topomemory.links import LinkGraph, State
from helix_plugin_topomemory.meaning.contexts import Contexts
from helix_plugin_topomemory.meaning.recall import Recall, recall
from helix_plugin_topomemory.meaning.recipe import MeaningRecipe, Phase
from helix_plugin_topomemory.meaning.replay import ReplayPool
from helix_plugin_training.data import load_corpus, read_documents
from helix_plugin_training.data.corpus import Document

ALPHABET = 256


@dataclass
class Induction:
    """What came of it: the links, and a record of every epoch."""

    recipe: MeaningRecipe
    graph: LinkGraph
    epochs: list[dict[str, Any]] = field(default_factory=list)
    transfer: dict[str, float] | None = None


def induce(recipe: MeaningRecipe, say: Callable[[str], None] = lambda text: None) -> Induction:
    """Carry out a recipe. Raises DataError if there is nothing to read."""
    corpus = load_corpus(recipe.data.source, recipe.data.validation)
    run = _Run(recipe, _joined(corpus.train), _joined(corpus.validation, recipe.data.held_out_bytes))
    for name in "abc":
        run.phase(name.upper(), getattr(recipe, name), say)
    if recipe.data.transfer:
        other = _joined(read_documents(recipe.data.transfer), recipe.data.held_out_bytes)
        found = run.recall(other)
        run.result.transfer = {"bits": found.bits, "bits_off": found.bits_off, "hit_rate": found.hit_rate}
    return run.result


class _Run:
    def __init__(self, recipe: MeaningRecipe, train: np.ndarray, held_out: np.ndarray) -> None:
        self.recipe, self.train, self.held_out = recipe, train, held_out
        self.rng = np.random.default_rng(recipe.seed)
        self.contexts = Contexts(recipe.data.order, recipe.data.context_bits, ALPHABET)
        self.result = Induction(recipe, LinkGraph(recipe.links))
        self.pool = ReplayPool(recipe.replay.pool, recipe.replay.recency, self.rng)
        self.frequencies = np.zeros(ALPHABET)
        self.at = 0
        self.stable: set[tuple[int, int]] = set()

    @property
    def graph(self) -> LinkGraph:
        return self.result.graph

    def recall(self, codes: np.ndarray, least: State = State.I) -> Recall:
        return recall(self.graph, self.contexts, codes, self.frequencies, least)

    def phase(self, name: str, phase: Phase, say: Callable[[str], None]) -> None:
        """Epochs until the evidence says that the phase is over, or there were enough."""
        thresholds = phase.model_dump(include={"theta_low", "theta_high", "link_npmi"})
        self.graph.config = self.recipe.links.model_copy(update=thresholds)
        for number in range(1, phase.most_epochs + 1):
            record = self._epoch(name, phase)
            over = self._gate(name, record)
            record["ends"] = "evidence" if over else "epochs" if number == phase.most_epochs else None
            self.result.epochs.append(record)
            say(
                f"phase {name} epoch {len(self.result.epochs)}: {record['links']['U']:,} U {record['links']['I']:,} I "
                f"{record['links']['S']:,} S, {record['bits']:.3f} bits/byte, hit rate {record['hit_rate']:.1%}"
            )
            if over:
                break

    def _epoch(self, name: str, phase: Phase) -> dict[str, Any]:
        data, replay = self.recipe.data, self.recipe.replay
        moves: dict[str, int] = {}
        replayed = window = 0
        for part in np.array_split(self._next_bytes(data.epoch_bytes), data.ticks):
            for begin in range(0, len(part), replay.window):
                piece = part[begin : begin + replay.window]
                nodes, targets = self.contexts.pairs(piece)
                valid = nodes >= 0
                a, b = nodes[valid], np.broadcast_to(targets, nodes.shape)[valid]
                if not len(a):
                    continue
                self.graph.observe(a, b, grow=name != "C")
                self.pool.add(a.astype(np.int32), b.astype(np.int32))
                window += 1
                if window % phase.replay_every == 0:
                    replayed += self.pool.replay(self.graph, replay.sample)
            self.frequencies += np.bincount(part, minlength=ALPHABET)
            for move, count in self.graph.advance().items():
                moves[move] = moves.get(move, 0) + count
        began = time.perf_counter()
        found = self.recall(self.held_out)
        seconds = time.perf_counter() - began
        before, self.stable = self.stable, self.graph.links(State.S).pairs()
        stats = self.graph.stats()
        links = {state: stats[state] for state in ("candidate", "U", "I", "S")}
        return {
            "phase": name,
            "links": links,
            "moves": moves,
            "new_links": moves.get("candidate>U", 0) / max(1, links["U"] + links["I"] + links["S"]),
            "jaccard": len(before & self.stable) / max(1, len(before | self.stable)),
            "replayed": replayed,
            "bits": found.bits,
            "bits_off": found.bits_off,
            "covered": found.covered,
            "hit_rate": found.hit_rate,
            "recall_us_per_byte": 1e6 * seconds / max(1, len(self.held_out)),
        }

    def _gate(self, name: str, record: dict[str, Any]) -> bool:
        gates, past = self.recipe.gates, self.result.epochs
        if name == "A":
            return bool(record["new_links"] < gates.new_links)
        if name == "B" and past:
            improved = 1 - record["bits"] / past[-1]["bits"]
            return bool(record["jaccard"] >= gates.jaccard and improved < gates.improvement)
        return False

    def _next_bytes(self, count: int) -> np.ndarray:
        """The next bytes of the training text, which begins anew when it ends."""
        count = min(count, len(self.train))
        taken = np.take(self.train, np.arange(self.at, self.at + count), mode="wrap")
        self.at = (self.at + count) % len(self.train)
        return taken


def _joined(documents: Sequence[Document], limit: int | None = None) -> np.ndarray:
    taken, room = [], limit if limit is not None else sum(map(len, documents))
    for document in documents:
        taken.append(np.asarray(document.data[:room]))
        room -= len(taken[-1])
        if room <= 0:
            break
    return np.concatenate(taken).astype(np.int64)
