"""Evaluate nested lists: hierarchy, which must be kept in memory until each list closes."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator

PAD, CLOSE, ASK, OPEN = 10, 11, 12, 13
"""Tokens: the digits 0-9, padding, `]`, `=`, and from 13 on `[MAX`, `[MIN`, `[MED`, `[SM`."""
OPERATORS = (max, min, lambda v: int(np.median(v)), lambda v: sum(v) % 10)
NAMES = (*map(str, range(10)), "_", "]", "=", "[MAX", "[MIN", "[MED", "[SM")


class ListOpsConfig(GeneratorConfig):
    """Options of ListOps."""

    seq_len: int = Field(128, ge=5, le=2**24, description="length with `=` and padding")
    max_depth: int = Field(6, ge=1, le=2**24, description="of nesting")
    max_args: int = Field(5, ge=2, le=2**16, description="most elements of a list; the least is 2")
    nesting: float = Field(0.5, ge=0, le=1, description="P(an element is a list), where there is room for one")


class ListOps(TokenGenerator[ListOpsConfig]):
    """`[MAX 4 [MIN 8 2 ] [SM 9 3 ] ] =`: the value is due at `=`, which alone is scored; padding follows.

    Nangia and Bowman, 2018; SM is the sum modulo 10 and MED the median, rounded down.

    >>> from helix_core import create
    >>> sample = create("generator", "listops", seq_len=16, max_depth=2).sample(0, 0)
    >>> sample["inputs"].tolist()
    [14, 7, 9, 1, 16, 4, 8, 11, 1, 11, 12, 10, 10, 10, 10, 10]
    """

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return len(NAMES)

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        tokens: list[int] = []
        value = self._list(rng, tokens, self.config.seq_len - 1, self.config.max_depth)
        L, n = self.config.seq_len, len(tokens)
        inputs = np.full(L, PAD, np.int64)
        inputs[:n], inputs[n] = tokens, ASK
        targets = np.full(L, PAD, np.int64)
        targets[n] = value
        mask = np.zeros(L, bool)
        mask[n] = True
        return {"inputs": inputs, "targets": targets, "mask": mask}

    def _list(self, rng: np.random.Generator, tokens: list[int], room: int, depth: int) -> int:
        """Append a list of at most `room` tokens; return its value."""
        operator = int(rng.integers(len(OPERATORS)))
        count = int(rng.integers(2, min(self.config.max_args, room - 2) + 1))
        tokens.append(OPEN + operator)
        spare = rng.multinomial(room - 2 - count, np.full(count, 1 / count))
        values = []
        for extra in spare.tolist():
            # A list takes four tokens at least.
            if depth > 1 and extra >= 3 and rng.random() < self.config.nesting:
                values.append(self._list(rng, tokens, extra + 1, depth - 1))
            else:
                digit = int(rng.integers(10))
                tokens.append(digit)
                values.append(digit)
        tokens.append(CLOSE)
        return OPERATORS[operator](values)
