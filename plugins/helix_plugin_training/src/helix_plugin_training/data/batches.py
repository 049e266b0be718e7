"""Training batches as a pure function of seed and step, so that a resumed run sees the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helix_core.errors import DataError
from helix_plugin_lm.tokenizers import SEPARATOR
from helix_plugin_training.data.corpus import Document


@dataclass(frozen=True)
class Batch:
    """tokens, targets (B, L) int64; reset (B, L) bool, True where a document starts.

    mask (B, L) bool is True where targets are scored; None: everywhere.
    """

    tokens: np.ndarray
    targets: np.ndarray
    reset: np.ndarray
    mask: np.ndarray | None = None


class Batches:
    """Rows cut at random places from all documents in a line, each document behind a separator.

    Raises DataError if the documents together are shorter than one row.
    """

    def __init__(
        self, documents: Sequence[Document], *, batch_size: int, seq_len: int, seed: int, separator: int = SEPARATOR
    ) -> None:
        self.documents, self.separator = documents, separator
        self.batch_size, self.seq_len, self.seed = batch_size, seq_len, seed
        # starts[i] is where document i's separator stands in the line.
        self.starts = np.concatenate([[0], np.cumsum([len(d) + 1 for d in documents])])
        self.total = int(self.starts[-1])
        if self.total < seq_len + 1:
            raise DataError(
                f"the training data has {self.total - len(documents)} bytes or tokens, less than one row of {seq_len}",
                hint="give more data, or lower training.seq_len",
            )

    def __call__(self, step: int, part: int = 0) -> Batch:
        """The batch of an optimizer step's micro-batch `part`."""
        bits = np.random.Philox(key=self.seed, counter=[0, 0, part, step])
        begins = np.random.Generator(bits).integers(0, self.total - self.seq_len, size=self.batch_size)
        rows = np.empty((self.batch_size, self.seq_len + 1), dtype=np.int64)
        reset = np.zeros((self.batch_size, self.seq_len + 1), dtype=bool)
        for row, starts_here, begin in zip(rows, reset, begins, strict=True):
            self._fill(row, starts_here, int(begin))
        return Batch(rows[:, :-1], rows[:, 1:], reset[:, :-1])

    def _fill(self, row: np.ndarray, reset: np.ndarray, begin: int) -> None:
        index = int(np.searchsorted(self.starts, begin, side="right")) - 1
        filled = 0
        while filled < len(row):
            inside = begin + filled - int(self.starts[index])
            if inside == 0:
                row[filled], reset[filled] = self.separator, True
                filled += 1
            else:
                piece = self.documents[index].data[inside - 1 : inside - 1 + len(row) - filled]
                row[filled : filled + len(piece)] = piece
                filled += len(piece)
            if begin + filled >= self.starts[index + 1]:
                index += 1
