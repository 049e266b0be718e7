"""A memory beside a language model: the next token is drawn from a mixture of what both expect.

Keys are the features that the model's head reads, values the tokens that followed. Source: Khandelwal, Levy, Jurafsky,
Zettlemoyer and Lewis, Generalization through Memorization: Nearest Neighbor Language Models, 2020; growing while it
codes as in Grave, Joulin and Usunier, Improving Neural Language Models with a Continuous Cache, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import EvaluationError
from helix_core.kinds.memory import Hits, Memory
from helix_core.tree import tree_map
from helix_plugin_lm.tokenizers import SEPARATOR
from helix_plugin_training.data.corpus import Document

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable
    from helix_plugin_lm.models.language_model import LanguageModel

CHUNK = 64
"""Steps between which the memory learns; the mixture is fixed within them."""
ROWS = 16
SHARPNESS = (8.0, 32.0, 128.0)
"""Factors on similarities before the softmax over neighbours; the mixture learns which to trust."""

RECALL = 500
"""Steps of the past that the mixture's weights remember, for each kind of retrieval."""


class Mixture:
    """p = Σ_e w_e p_e over the model and the memory at several sharpnesses; this is λ p_memory + (1-λ) p_model.

    The weights are learned while coding, by online expectation maximisation, apart for each kind of retrieval: how
    near the best neighbour is, and how far the neighbours agree. A memory that does not help is given no weight.
    """

    def __init__(self, prior: float = 0.05) -> None:
        start = np.full(1 + len(SHARPNESS), prior / len(SHARPNESS))
        start[0] = 1 - prior
        # Twenty steps' worth of belief in the prior.
        self._credit = np.tile(20 * start, (10, 4, 1))

    def __call__(self, model: np.ndarray, hits: Hits, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the targets (N,) under the mixture, and the weight of the memory (N,); then learn.

        model (N,): the model's probabilities of the targets.
        """
        there = hits.ids >= 0
        behind = np.where(there, hits.scores, 0.0) - np.where(there[:, :1], hits.scores[:, :1], 0.0)
        p = [model]
        for sharpness in SHARPNESS:
            weight = np.where(there, np.exp(sharpness * np.minimum(behind, 0)), 0.0)
            weight /= np.maximum(weight.sum(1, keepdims=True), 1e-30)
            p.append(np.where(hits.values == targets[:, None], weight, 0.0).sum(1))
        experts = np.stack(p, 1)
        near = np.where(there[:, 0], hits.scores[:, 0], -1.0)
        nearness = np.where(there[:, 0], np.clip(10 * near - 1, 0, 8) + 1, 0).astype(np.int64)
        agreement = np.mean((hits.values == hits.values[:, :1]) & there, axis=1)
        kind = nearness, np.clip(4 * agreement, 0, 3).astype(np.int64)
        weights = self._credit[kind] / self._credit[kind].sum(1, keepdims=True)
        # No neighbours, no memory.
        weights = np.where(there[:, :1], weights, np.eye(1, weights.shape[1]))
        joint = weights * experts
        total = joint.sum(1)
        # Only so much of the past counts, so that the weights follow what is coded now.
        self._credit *= np.minimum(1, RECALL / self._credit.sum(-1, keepdims=True))
        np.add.at(self._credit, kind, joint / np.maximum(total, 1e-300)[:, None])
        return total, 1 - weights[:, 0]


@dataclass(frozen=True)
class MemoryEvaluation:
    """Bits for the same documents from the model alone and with the memory; share: the memory's mean weight λ."""

    model_bits: float
    bits: float
    share: float
    bytes: int
    documents: int

    @property
    def bits_per_byte(self) -> float:
        """The mean loss of a byte in bits, with the memory."""
        return self.bits / self.bytes

    @property
    def model_bits_per_byte(self) -> float:
        """The mean loss of a byte in bits, of the model alone."""
        return self.model_bits / self.bytes


def fill(
    memory: Memory[Any],
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    documents: Sequence[Document],
    limit: int,
) -> int:
    """Store the features and next bytes of documents until `limit` bytes are reached; the number stored."""
    stored = 0
    for document in documents:
        part = Document(document.name, document.data[: limit - stored])
        for _, keys, targets, _ in _walk(model, backend, F, params, [part]):
            memory.add(keys, targets)
        stored += len(part)
        if stored >= limit:
            break
    return stored


def evaluate_with_memory(
    memory: Memory[Any],
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    documents: Sequence[Document],
    *,
    k: int = 16,
    online: bool = True,
    progress: Callable[[int], None] | None = None,
) -> MemoryEvaluation:
    """Code every byte of every document by the model alone and with the memory; F should be bound for "infer".

    With `online` the memory learns each portion after it was coded, and sleeps between groups of documents: a decoder
    could do the same. Documents of like length go side by side, so what one says may help the others.
    """
    mixture = Mixture()
    model_nats = nats = share = 0.0
    ordered = sorted(documents, key=len, reverse=True)
    for start in range(0, len(ordered), ROWS):
        for log_p, keys, targets, count in _walk(model, backend, F, params, ordered[start : start + ROWS]):
            p, weight = mixture(np.exp(log_p), memory.query(keys, k), targets)
            model_nats -= float(log_p.sum())
            nats -= float(np.log(np.maximum(p, 1e-300)).sum())
            share += float(weight.sum())
            if online:
                memory.add(keys, targets)
            if progress:
                progress(count)
        if online:
            memory.consolidate()
    if not math.isfinite(model_nats + nats):
        raise EvaluationError("the model's loss is not finite", hint="its weights have overflowed")
    total = sum(map(len, documents))
    return MemoryEvaluation(model_nats / math.log(2), nats / math.log(2), share / total, total, len(documents))


def _walk(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    documents: Sequence[Document],
) -> Any:
    """For every portion of documents (longest first): log p of its bytes (N,), features (N, D), bytes (N,), N."""
    active = [document for document in documents if len(document)]
    if not active:
        return
    with backend.inference():
        state: Any = model.init_state(F, len(active))
    for start in range(0, len(active[0]), CHUNK):
        going = sum(len(d) > start for d in active)
        with backend.inference():
            if going < len(active):  # finished rows stand last
                active = active[:going]
                state = tree_map(lambda a, n=going: a[:n], state)
            width = min(CHUNK, len(active[0]) - start)
            targets = np.full((going, width), SEPARATOR, np.int64)
            tokens = np.full((going, width), SEPARATOR, np.int64)
            mask = np.zeros((going, width), bool)
            for row, document in enumerate(active):
                piece = document.data[start : start + width]
                n = len(piece)
                targets[row, :n], mask[row, :n] = piece, True
                tokens[row, :n] = document.data[start - 1 : start - 1 + n] if start else [SEPARATOR, *piece[:-1]]
            ragged = None if mask.all() else backend.asarray(mask)
            x, state = model.features(F, params, backend.asarray(tokens), state=state, mask=ragged)
            loss = backend.to_numpy(model.nats(F, params, x, backend.asarray(targets)))
            keys = backend.to_numpy(x)
        yield -loss[mask].astype(np.float64), keys[mask].astype(np.float32), targets[mask], int(mask.sum())
