"""Recall what followed a special token when it comes again."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator

SPECIAL = 0


class InductionHeadsConfig(GeneratorConfig):
    """Options of InductionHeads."""

    seq_len: int = Field(256, ge=3, le=2**24, description="length with both special tokens")
    vocab_size: int = Field(16, gt=2, le=2**22, description="the alphabet and the special token (0)")


class InductionHeads(TokenGenerator[InductionHeadsConfig]):
    """Random tokens, the special one once among them and again at the end: what followed it then is due now.

    Olsson et al., 2022; as a task of its own Dao et al., 2023 (H3) and Gu and Dao, 2023, section 4.1.2 (there: length
    256, vocabulary of 16). Scored at the last token.

    >>> from helix_core import create
    >>> sample = create("generator", "induction-heads", seq_len=8, vocab_size=6).sample(0, 0)
    >>> sample["inputs"].tolist(), int(sample["targets"][-1])
    ([2, 5, 0, 4, 3, 2, 4, 0], 4)
    """

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        L = self.config.seq_len
        inputs = rng.integers(1, self.config.vocab_size, size=L)
        place = int(rng.integers(L - 2))
        inputs[place] = inputs[-1] = SPECIAL
        targets = np.zeros(L, np.int64)
        targets[-1] = inputs[place + 1]
        mask = np.zeros(L, bool)
        mask[-1] = True
        return {"inputs": inputs, "targets": targets, "mask": mask}
