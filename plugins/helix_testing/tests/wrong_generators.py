"""Generators with one fault each, which the kit must find."""

import itertools

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, TokenGenerator


class Options(GeneratorConfig):
    size: int = Field(6, gt=0)


class Right(TokenGenerator[Options]):
    """Repeats what it read, under a permutation that all samples of a seed share."""

    seq_len = property(lambda self: self.config.size)
    vocab_size = property(lambda self: 8)

    def make_world(self, rng):
        return rng.permutation(8)

    def draw(self, rng, world):
        inputs = rng.integers(8, size=self.config.size)
        return {"inputs": inputs, "targets": world[inputs], "mask": np.ones(self.config.size, bool)}


class Counts(Right):
    """Depends on how many samples were drawn before."""

    def __init__(self, config):
        super().__init__(config)
        self.count = itertools.count()

    def draw(self, rng, world):
        return super().draw(np.random.default_rng(next(self.count)), world)


class IgnoresSeed(Right):
    def sample(self, seed, index):
        return super().sample(0, index)


class Global(Right):
    def draw(self, rng, world):
        np.random.rand()
        return super().draw(rng, world)


class KeepsWorld(Right):
    """The first seed's world stays."""

    def world(self, seed):
        self._world = self._world or (seed, super().world(seed))
        return self._world[1]


class Aliases(Right):
    """Hands out what it keeps."""

    def draw(self, rng, world):
        return {**super().draw(rng, world), "targets": world[:6]}


class OtherType(Right):
    def draw(self, rng, world):
        sample = super().draw(rng, world)
        return {**sample, "targets": sample["targets"].astype(np.int32)}


class Outside(Right):
    vocab_size = property(lambda self: 7)


class Unmasked(Right):
    def draw(self, rng, world):
        return {**super().draw(rng, world), "mask": np.zeros(6, bool)}


class Infinite(Generator[Options]):
    def schema(self):
        return {"x": FieldSpec("float64", (1,))}

    def draw(self, rng, world):
        return {"x": np.log(rng.integers(2, size=1))}
