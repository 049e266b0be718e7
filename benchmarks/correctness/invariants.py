"""What must be true of any causal language model, whatever computes it.

A subject has

    logits(tokens, mask=None, documents=None)   tokens (B, L) -> (B, L, V); documents: lengths of those packed in row 0
    begin(tokens, mask=None)                    -> logits (B, L, V), a cache
    go_on(tokens, cache)                        -> logits (B, K, V), a cache: K further tokens of every row
    gradients(tokens, labels, micro)            -> gradient by name of the mean loss over all labels >= 0, in `micro`
                                                   micro-batches

and each check returns the largest difference from the model's own plain answer, over that answer's largest value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

VOCAB = 64
LENGTHS = (13, 21, 8)


class Subject(Protocol):
    def logits(self, tokens: np.ndarray, mask: Any = None, documents: Any = None) -> np.ndarray: ...
    def begin(self, tokens: np.ndarray, mask: Any = None) -> tuple[np.ndarray, Any]: ...
    def go_on(self, tokens: np.ndarray, cache: Any) -> tuple[np.ndarray, Any]: ...
    def gradients(self, tokens: np.ndarray, labels: np.ndarray, micro: int) -> dict[str, np.ndarray]: ...


def _rows(lengths: tuple[int, ...] = LENGTHS) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(2, VOCAB, size=(1, n)) for n in lengths]


def _padded(rows: list[np.ndarray], side: str) -> tuple[np.ndarray, np.ndarray]:
    longest = max(row.shape[1] for row in rows)
    tokens, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), bool)
    for i, row in enumerate(rows):
        at = slice(longest - row.shape[1], None) if side == "left" else slice(row.shape[1])
        tokens[i, at], mask[i, at] = row[0], True
    return tokens, mask


def _error(got: np.ndarray, expected: np.ndarray) -> float:
    difference = float(np.max(np.abs(got.astype(np.float64) - expected)))
    return difference / float(np.max(np.abs(expected)))


def left_padding(subject: Subject) -> float:
    """A batch of rows padded on the left, with its mask, gives each row what it gets alone."""
    rows = _rows()
    tokens, mask = _padded(rows, "left")
    got = subject.logits(tokens, mask=mask)
    return max(_error(got[i : i + 1][:, mask[i]], subject.logits(row)) for i, row in enumerate(rows))


def right_padded_prefill(subject: Subject) -> float:
    """Prompts padded on the right, with their mask; the token after each prompt is then as if it stood alone."""
    rows = _rows()
    tokens, mask = _padded([row[:, :-1] for row in rows], "right")
    _, cache = subject.begin(tokens, mask=mask)
    got, _ = subject.go_on(np.concatenate([row[:, -1:] for row in rows]), cache)
    return max(_error(got[i : i + 1], subject.logits(row)[:, -1:]) for i, row in enumerate(rows))


def packed_documents(subject: Subject) -> float:
    """Documents one after another in a row, with their boundaries, are as if each stood alone."""
    rows = _rows()
    got = subject.logits(np.concatenate(rows, axis=1), documents=LENGTHS)
    ends = np.cumsum(LENGTHS)
    parts = [got[:, end - row.shape[1] : end] for end, row in zip(ends, rows, strict=True)]
    return max(_error(part, subject.logits(row)) for part, row in zip(parts, rows, strict=True))


def _in_pieces(subject: Subject, sizes: tuple[int, ...]) -> float:
    row = _rows((sum(sizes),))[0]
    logits, cache = subject.begin(row[:, : sizes[0]])
    got, at = [logits], sizes[0]
    for size in sizes[1:]:
        logits, cache = subject.go_on(row[:, at : at + size], cache)
        got.append(logits)
        at += size
    return _error(np.concatenate(got, axis=1), subject.logits(row))


def prefill_and_step(subject: Subject) -> float:
    """A prompt read at once and then token by token equals all at once."""
    return _in_pieces(subject, (17, 1, 1, 1, 1))


def chunked_prefill(subject: Subject) -> float:
    """A prompt read in chunks with the cache carried on equals all at once."""
    return _in_pieces(subject, (7, 9, 5))


def step_by_step(subject: Subject) -> float:
    """Token by token from the first equals all at once."""
    return _in_pieces(subject, (1,) * 21)


def accumulation(subject: Subject) -> float:
    """Eight rows with differently many labels: eight micro-batches of one give the gradient of two of four."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(2, VOCAB, size=(8, 16))
    labels = np.where(np.arange(16) < rng.integers(2, 17, size=(8, 1)), tokens, -100)
    one, four = (subject.gradients(tokens, labels, micro) for micro in (8, 2))
    scale = max(float(np.max(np.abs(g))) for g in four.values())
    return max(float(np.max(np.abs(one[name] - g))) for name, g in four.items()) / scale


CHECKS: dict[str, Callable[[Subject], float]] = {
    "left padding = none": left_padding,
    "right-padded prefill, then a step": right_padded_prefill,
    "packed documents = separate": packed_documents,
    "prefill and steps = at once": prefill_and_step,
    "chunked prefill = at once": chunked_prefill,
    "step by step = at once": step_by_step,
    "accumulation 8x1 = 2x4": accumulation,
}
