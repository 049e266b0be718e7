"""Repeat a string after a gap: a test of plain memory, which a fixed delay solves."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator

BLANK, MARKER = 0, 1


class CopyingConfig(GeneratorConfig):
    """Options of Copying."""

    tokens: int = Field(10, gt=0, le=2**24, description="length of the string")
    lag: int = Field(100, ge=0, le=2**24, description="blanks between the string and the place where it is repeated")
    vocab_size: int = Field(10, gt=3, le=2**22, description="the alphabet, a blank (0) and a marker (1)")


class Copying(TokenGenerator[CopyingConfig]):
    """n tokens, `lag` blanks, n markers: at the i-th marker the i-th token is due.

    Hochreiter and Schmidhuber, 1997; in this form Arjovsky, Shah and Bengio, 2016. Scored at the markers.

    >>> from helix_core import create
    >>> sample = create("generator", "copying", tokens=3, lag=2).sample(0, 0)
    >>> sample["inputs"].tolist(), sample["targets"].tolist()
    ([4, 9, 8, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 4, 9, 8])
    """

    @property
    def seq_len(self) -> int:
        return 2 * self.config.tokens + self.config.lag

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        n = self.config.tokens
        string = rng.integers(2, self.config.vocab_size, size=n)
        inputs = np.full(self.seq_len, BLANK, np.int64)
        inputs[:n], inputs[-n:] = string, MARKER
        targets = np.full(self.seq_len, BLANK, np.int64)
        targets[-n:] = string
        mask = np.zeros(self.seq_len, bool)
        mask[-n:] = True
        return {"inputs": inputs, "targets": targets, "mask": mask}
