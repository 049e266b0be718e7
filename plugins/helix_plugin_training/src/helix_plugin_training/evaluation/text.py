"""Held-out bits per byte, with the state carried through each whole document."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import EvaluationError
from helix_core.tree import tree_map
from helix_plugin_lm.tokenizers import BYTES, Tokenizer, check_vocabulary
from helix_plugin_training.data.corpus import Document, encode, start_token

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable
    from helix_plugin_lm.models.language_model import LanguageModel

CHUNK = 1024
ROWS = 16


@dataclass(frozen=True)
class Evaluation:
    """Bits that the model needs for the documents, each coded on its own from its first byte to its last."""

    bits: float
    bytes: int
    documents: int
    tokens: int

    @property
    def bits_per_byte(self) -> float:
        """The mean loss of a byte in bits."""
        return self.bits / self.bytes

    @property
    def bits_per_token(self) -> float:
        """The mean loss of a token in bits."""
        return self.bits / self.tokens


def evaluate(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    documents: Sequence[Document],
    *,
    tokenizer: Tokenizer = BYTES,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Code every byte, or token, of every document of bytes; F should be bound with mode "infer".

    A model whose state holds so many tokens and no more (`model.context`) codes longer documents in windows of that
    length, each of which begins half a window before what it codes. Bits of tokens are spread over the bytes of their
    text. `progress` is called with the number of bytes of each finished portion. Raises DataError for a document that
    the tokenizer cannot encode, ConfigError for the tokenizer of another model, EvaluationError if the bits are not
    finite.
    """
    check_vocabulary(tokenizer, model.vocab_size)
    # Documents of like length share a batch, so that few rows idle.
    ordered = sorted(documents, key=len, reverse=True)
    separator = start_token(tokenizer)
    nats, tokens = 0.0, 0
    for start in range(0, len(ordered), ROWS):
        rows = ordered[start : start + ROWS]
        size = sum(map(len, rows))
        if tokenizer is not BYTES:
            rows = sorted((Document(d.name, encode(tokenizer, d)) for d in rows), key=len, reverse=True)
        count = sum(map(len, rows))
        scaled = _scaled(progress, size, count) if progress else None
        if model.context is not None and len(rows[0]) > model.context:
            nats += _evaluate_windows(model, backend, F, params, rows, model.context, separator, scaled)
        else:
            nats += _evaluate_rows(model, backend, F, params, rows, separator, scaled)
        tokens += count
    check_bits(nats)
    return Evaluation(nats / math.log(2), sum(map(len, documents)), len(documents), tokens)


def check_bits(nats: float) -> None:
    """Raise EvaluationError for a sum of losses that is not finite."""
    if not math.isfinite(nats):
        raise EvaluationError(
            "the model's loss on held-out data is not finite",
            hint="its weights have overflowed; take an older checkpoint, or train with a lower optimizer.lr",
        )


def _scaled(progress: Callable[[int], None], size: int, count: int) -> Callable[[int], None]:
    """Report bytes, `size` in all, for portions of `count` tokens."""
    done = 0

    def report(portion: int) -> None:
        nonlocal done
        before, done = done, done + portion
        progress(size * done // count - size * before // count)

    return report


def _evaluate_rows(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    documents: Sequence[Document],
    separator: int,
    progress: Callable[[int], None] | None,
) -> float:
    nats = 0.0
    longest = len(documents[0])
    active = list(documents)
    with backend.inference():
        state: Any = model.init_state(F, len(active))
        for start in range(0, longest, CHUNK):
            going = sum(len(d) > start for d in active)
            if going < len(active):  # finished rows stand last, since documents are sorted
                active = active[:going]
                state = tree_map(lambda a, n=going: a[:n], state)
            width = min(CHUNK, longest - start)
            targets = np.full((len(active), width), separator, dtype=np.int64)
            tokens = np.full((len(active), width), separator, dtype=np.int64)
            mask = np.zeros((len(active), width), dtype=bool)
            for row, document in enumerate(active):
                piece = document.data[start : start + width]
                n = len(piece)
                targets[row, :n], mask[row, :n] = piece, True
                tokens[row, :n] = document.data[start - 1 : start - 1 + n] if start else [separator, *piece[:-1]]
            ragged = None if mask.all() else backend.asarray(mask)
            x, state = model.features(F, params, backend.asarray(tokens), state=state, mask=ragged)
            loss = backend.to_numpy(model.nats(F, params, x, backend.asarray(targets)))
            nats += float(np.sum(loss, where=mask, dtype=np.float64))
            if progress:
                progress(int(mask.sum()))
    return nats


def _evaluate_windows(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    documents: Sequence[Document],
    context: int,
    separator: int,
    progress: Callable[[int], None] | None,
) -> float:
    nats = 0.0
    half = max(1, context // 2)
    for begin in [0, *range(context, len(documents[0]), half)]:
        first = max(0, begin - (context - half))
        end = begin + (half if begin else context)
        going = [d.data[first:end] for d in documents if len(d) > begin]
        width = max(map(len, going))
        targets = np.full((len(going), width), separator, dtype=np.int64)
        before = np.full((len(going), 1), separator, dtype=np.int64)
        coded = np.zeros((len(going), width), dtype=bool)
        for row, piece in enumerate(going):
            targets[row, : len(piece)] = piece
            coded[row, begin - first : len(piece)] = True
            if first:
                before[row] = documents[row].data[first - 1]
        tokens = np.concatenate([before, targets[:, :-1]], axis=1)
        with backend.inference():
            x, _ = model.features(F, params, backend.asarray(tokens))
            loss = backend.to_numpy(model.nats(F, params, x, backend.asarray(targets)))
        nats += float(np.sum(loss, where=coded, dtype=np.float64))
        if progress:
            progress(int(coded.sum()))
    return nats


def gzip_bits_per_byte(documents: Sequence[Document]) -> float:
    """What `gzip -9` needs for the same documents, each compressed on its own."""
    packed = sum(len(gzip.compress(document.data.tobytes(), compresslevel=9, mtime=0)) for document in documents)
    return 8 * packed / sum(map(len, documents))
