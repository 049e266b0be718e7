"""Handwritten digits as sequences of pixels: real data in the shape of a task."""

from __future__ import annotations

from functools import cache

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator
from helix_plugin_training.data.task import HELD_OUT

ASK = 17


class DigitsConfig(GeneratorConfig):
    """Options of Digits."""

    held_out: int = Field(360, gt=0, lt=1797, description="of the 1797 images, those never trained on")


class Digits(TokenGenerator[DigitsConfig]):
    """64 pixels of 0..16, row by row, then `=` (17): the digit is due there, and alone is scored.

    The 1797 images of scikit-learn's `load_digits` (Alpaydin and Kaynak, 1998). A seed shuffles them; indices from
    2**62 on, where Helix keeps what is held out, go through the last `held_out` images, all others through the rest.

    >>> from helix_core import create
    >>> sample = create("generator", "digits").sample(0, 0)
    >>> sample["inputs"].shape
    (65,)
    """

    @property
    def seq_len(self) -> int:
        return 65

    @property
    def vocab_size(self) -> int:
        return ASK + 1

    def make_world(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(_images()[1]))

    def sample(self, seed: int, index: int) -> Sample:
        """Sample `index` of `seed`. Raises UsageError if either is out of range."""
        found = super().sample(seed, index)
        order, kept = self.world(seed), self.config.held_out
        part = order[-kept:] if index >= HELD_OUT else order[:-kept]
        found["inputs"][:-1], found["targets"][-1] = (a[part[index % len(part)]] for a in _images())
        return found

    def draw(self, rng: np.random.Generator, world: np.ndarray) -> Sample:
        """An empty sample: which image it is follows from the index, not from chance."""
        mask = np.zeros(self.seq_len, bool)
        mask[-1] = True
        return {
            "inputs": np.full(self.seq_len, ASK, np.int64),
            "targets": np.zeros(self.seq_len, np.int64),
            "mask": mask,
        }


@cache
def _images() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 64) and labels (1797,)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.int64), labels.astype(np.int64)
