"""Balanced brackets: after every token, which bracket must be closed next?"""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator


class DyckConfig(GeneratorConfig):
    """Options of Dyck."""

    seq_len: int = Field(256, gt=1, le=2**24, description="number of brackets; even")
    kinds: int = Field(4, gt=1, le=2**22, description="n of Dyck-n: kinds of brackets")
    max_depth: int = Field(16, gt=0, le=2**24, description="of nesting")
    opening: float = Field(0.5, gt=0, lt=1, description="P(the next bracket opens), where both are possible")

    @model_validator(mode="after")
    def _even(self) -> DyckConfig:
        if self.seq_len % 2:
            raise ValueError(f"{self.seq_len} brackets cannot be balanced: give an even seq_len")
        return self


class Dyck(TokenGenerator[DyckConfig]):
    """A balanced string of n kinds of brackets, 0 .. n-1 opening and n .. 2n-1 closing, of bounded depth.

    Due after every token is the bracket that closes the innermost open one; scored where one is open. Suzgun et al.,
    2019; of bounded depth Hewitt et al., 2020. A model that answers all has the whole stack in its state.

    >>> from helix_core import create
    >>> sample = create("generator", "dyck", seq_len=8).sample(0, 0)
    >>> sample["inputs"].tolist()
    [1, 5, 3, 2, 1, 5, 6, 7]
    """

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return 2 * self.config.kinds

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        L, n = self.config.seq_len, self.config.kinds
        kinds = rng.integers(n, size=L).tolist()
        opens = (rng.random(L) < self.config.opening).tolist()
        inputs, targets, mask = np.empty(L, np.int64), np.zeros(L, np.int64), np.zeros(L, bool)
        stack: list[int] = []
        for t in range(L):
            must_open, must_close = not stack, len(stack) in (self.config.max_depth, L - t)
            if must_open or (opens[t] and not must_close):
                inputs[t] = kinds[t]
                stack.append(kinds[t])
            else:
                inputs[t] = n + stack.pop()
            if stack:
                targets[t], mask[t] = n + stack[-1], True
        return {"inputs": inputs, "targets": targets, "mask": mask}
