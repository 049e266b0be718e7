"""Keep a sum modulo a number: the smallest task that asks a state to be tracked."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator


class ParityConfig(GeneratorConfig):
    """Options of Parity."""

    seq_len: int = Field(64, gt=0, le=2**24, description="length of a sample")
    modulus: int = Field(2, gt=1, le=2**20, description="numbers are 0 .. modulus - 1; 2 is parity")


class Parity(TokenGenerator[ParityConfig]):
    """Numbers; at each one the sum of all so far, modulo m, is due. Every position is scored.

    Addition modulo m with no other signs: a state whose decays are all positive cannot do it for any length, one that
    turns or changes its sign can (Grazzi et al., 2024; Lahoti et al., 2026).

    >>> from helix_core import create
    >>> sample = create("generator", "parity", seq_len=8).sample(0, 0)
    >>> sample["inputs"].tolist(), sample["targets"].tolist()
    ([0, 1, 1, 1, 0, 0, 1, 0], [0, 1, 0, 1, 1, 1, 0, 0])
    """

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return self.config.modulus

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        inputs = rng.integers(self.config.modulus, size=self.seq_len)
        return {
            "inputs": inputs,
            "targets": np.cumsum(inputs) % self.config.modulus,
            "mask": np.ones(self.seq_len, bool),
        }
