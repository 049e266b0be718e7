"""Independent tokens whose frequencies follow Zipf's law, as those of words do."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator
from helix_plugin_synthetic.sequences import next_token


class ZipfConfig(GeneratorConfig):
    """Options of Zipf."""

    seq_len: int = Field(256, gt=0, le=2**24, description="tokens that the model reads")
    vocab_size: int = Field(256, gt=1, le=2**22, description="number of different tokens")
    exponent: float = Field(1.0, ge=0, le=20, description="s in p(r) ~ 1 / (r + q)^s; 0 is uniform")
    shift: float = Field(0.0, ge=0, description="Mandelbrot's q")


class Zipf(TokenGenerator[ZipfConfig]):
    """p(token r - 1) ~ 1 / (r + q)^s for ranks r = 1 .. V (Mandelbrot, 1953).

    >>> from helix_core import create
    >>> sample = create("generator", "zipf", seq_len=8).sample(0, 0)
    >>> sample["inputs"].tolist()
    [234, 34, 2, 0, 165, 168, 101, 7]
    """

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def make_world(self, rng: np.random.Generator) -> np.ndarray:
        return np.cumsum(self.frequencies())

    def frequencies(self) -> np.ndarray:
        """The probability of every token (V,)."""
        weights = (np.arange(1, self.config.vocab_size + 1) + self.config.shift) ** -self.config.exponent
        shares: np.ndarray = weights / weights.sum()
        return shares

    def draw(self, rng: np.random.Generator, world: np.ndarray) -> Sample:
        found = np.searchsorted(world, rng.random(self.config.seq_len + 1), side="right")
        return next_token(np.minimum(found, self.config.vocab_size - 1))
