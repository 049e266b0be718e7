"""Repeat the tokens that stand scattered among noise: memory must choose by content, not by time."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator

NOISE, MARKER = 0, 1


class SelectiveCopyingConfig(GeneratorConfig):
    """Options of SelectiveCopying."""

    context: int = Field(4096, gt=0, le=2**24, description="length of the part in which the tokens are scattered")
    tokens: int = Field(16, gt=0, le=2**24, description="tokens to remember")
    vocab_size: int = Field(16, gt=3, le=2**22, description="the alphabet, noise (0) and a marker (1)")

    @model_validator(mode="after")
    def _fits(self) -> SelectiveCopyingConfig:
        if self.tokens > self.context:
            raise ValueError(f"{self.tokens} tokens do not fit into a context of {self.context}: raise context")
        return self


class SelectiveCopying(TokenGenerator[SelectiveCopyingConfig]):
    """M tokens at random places of a context of noise, then M markers: at the i-th marker the i-th token is due.

    Gu and Dao, 2023, section 4.1.1 (there: length 4096, 16 tokens, vocabulary of 16). Scored at the markers.

    >>> from helix_core import create
    >>> sample = create("generator", "selective-copying", context=8, tokens=3).sample(0, 0)
    >>> sample["inputs"].tolist(), sample["targets"].tolist()
    ([0, 11, 0, 0, 0, 0, 7, 6, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0, 11, 7, 6])
    """

    @property
    def seq_len(self) -> int:
        return self.config.context + self.config.tokens

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        n, context = self.config.tokens, self.config.context
        places = np.sort(rng.choice(context, size=n, replace=False, shuffle=False))
        string = rng.integers(2, self.config.vocab_size, size=n)
        inputs = np.full(context + n, NOISE, np.int64)
        inputs[places], inputs[context:] = string, MARKER
        targets = np.full(context + n, NOISE, np.int64)
        targets[context:] = string
        mask = np.zeros(context + n, bool)
        mask[context:] = True
        return {"inputs": inputs, "targets": targets, "mask": mask}
