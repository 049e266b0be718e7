"""Multi-query associative recall (MQAR): many keys are asked for again, soon or late."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator


class AssociativeRecallConfig(GeneratorConfig):
    """Options of AssociativeRecall."""

    seq_len: int = Field(256, gt=0, le=2**24, description="length with pairs and queries")
    pairs: int = Field(16, gt=0, le=2**24, description="key-value pairs, each asked for once")
    vocab_size: int = Field(
        8192, gt=3, le=2**22, description="0, then keys (the lower half), then values (the upper half)"
    )
    power: float = Field(0.01, gt=0, le=1, description="a: gaps g before a query have p(g) ~ a g^(a-1); 1 is uniform")
    random_filler: bool = Field(True, description="random tokens where nothing is asked, instead of 0")

    @model_validator(mode="after")
    def _fits(self) -> AssociativeRecallConfig:
        if 4 * self.pairs > self.seq_len:
            raise ValueError(f"{self.pairs} pairs and their queries need seq_len >= {4 * self.pairs}")
        if self.pairs >= self.vocab_size // 2:
            raise ValueError(f"{self.pairs} different keys need vocab_size > {2 * self.pairs + 1}")
        return self


class AssociativeRecall(TokenGenerator[AssociativeRecallConfig]):
    """k1 v1 k2 v2 ... and then each key again, once, after a gap from a power law: its value is due there.

    Arora et al., 2023 ("Zoology"), MQAR. Keys and values are drawn without replacement from the two halves of the
    vocabulary; a query stands at an even distance from the last pair. Scored at the queries.

    >>> from helix_core import create
    >>> recall = create("generator", "associative-recall", seq_len=16, pairs=2, vocab_size=8, random_filler=False)
    >>> sample = recall.sample(0, 0)
    >>> sample["inputs"].tolist()
    [1, 5, 3, 6, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]
    """

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def make_world(self, rng: np.random.Generator) -> np.ndarray:
        space = (self.config.seq_len - 2 * self.config.pairs) // 2
        weights = np.arange(1, space + 1) ** (self.config.power - 1)
        shares: np.ndarray = weights / weights.sum()
        return shares

    def draw(self, rng: np.random.Generator, world: np.ndarray) -> Sample:
        c = self.config
        L, n, half = c.seq_len, c.pairs, c.vocab_size // 2
        keys = rng.choice(np.arange(1, half), size=n, replace=False)
        values = rng.choice(np.arange(half, c.vocab_size), size=n, replace=False)
        places = 2 * n + 2 * rng.choice(len(world), size=n, replace=False, p=world)
        inputs = rng.integers(c.vocab_size, size=L) if c.random_filler else np.zeros(L, np.int64)
        inputs[0 : 2 * n : 2], inputs[1 : 2 * n : 2], inputs[places] = keys, values, keys
        targets = np.zeros(L, np.int64)
        targets[places] = values
        mask = np.zeros(L, bool)
        mask[places] = True
        return {"inputs": inputs, "targets": targets, "mask": mask}
