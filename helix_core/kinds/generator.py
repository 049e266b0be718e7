"""What a generator is: a schema and a pure function (seed, index) -> sample.

Every sample has a random stream of its own, addressed by seed and index (counter-based: Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011). So any worker may draw any sample in any order, and the bytes are those
that one worker would have drawn.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from helix_core.errors import UsageError

Sample = dict[str, Any]
"""A sample's fields by name: arrays as the schema says, or str."""

DTYPES = ("bool", "uint8", "int32", "int64", "float32", "float64", "str")


class GeneratorConfig(BaseModel):
    """Options of a generator; its own config adds them. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class FieldSpec:
    """One field of a generator's samples.

    dtype     "bool", "uint8", "int32", "int64", "float32", "float64", or "str" for text
    shape     its shape; the first axis may be None if its length varies from sample to sample
    meaning   one line
    nan       whether NaN may occur, for a missing value
    """

    dtype: str
    shape: tuple[int | None, ...] = ()
    meaning: str = ""
    nan: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or (self.dtype == "str" and self.shape) or None in self.shape[1:]:
            raise ValueError(f"a field like this cannot be stored: {self}")

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value of this field, or None."""
        if self.dtype == "str":
            return None if isinstance(value, str) else f"is {type(value).__name__}, not str"
        if not isinstance(value, np.ndarray | np.generic):
            return f"is {type(value).__name__}, not a NumPy array"
        if value.dtype != np.dtype(self.dtype):
            return f"has dtype {value.dtype}, not {self.dtype}"
        same = len(value.shape) == len(self.shape) and all(
            want in (None, got) for want, got in zip(self.shape, value.shape, strict=True)
        )
        if not same:
            return f"has shape {value.shape}, not {self.shape}"
        if value.dtype.kind == "f":
            finite = np.isfinite(value) | (np.isnan(value) if self.nan else False)
            return None if np.all(finite) else "has values that are not finite"
        return None


def stream(seed: int, index: int, purpose: str = "sample") -> np.random.Generator:
    """The random numbers of sample `index` under `seed`; those of another index, seed or purpose are independent.

    Raises UsageError unless 0 <= seed < 2**64 and 0 <= index < 2**64.
    """
    for name, value in (("seed", seed), ("index", index)):
        if not 0 <= value < 2**64:
            raise UsageError(f"{name} {value} is not in [0, 2**64)")
    # Philox counts in the counter's first words, so samples, which differ in the last, never overlap.
    # As uint64: NumPy would turn a list with small and large integers into floats.
    key = np.array([seed, _tag(purpose)], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, index], np.uint64)))


ConfigT = TypeVar("ConfigT", bound=GeneratorConfig)


class Generator(ABC, Generic[ConfigT]):
    """Samples by seed and index.

    `schema` and `draw` define one; `world` adds what all samples of a seed share, such as a transition matrix. A
    generator holds nothing but its config and a memory of worlds, takes randomness only from the stream it is handed,
    and touches no global state. Raise ConfigError (in the config's validators, ValueError) for options that no sample
    can satisfy, never while drawing.
    """

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self._world: tuple[int, Any] | None = None

    @abstractmethod
    def schema(self) -> dict[str, FieldSpec]:
        """The fields of every sample."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, world: Any) -> Sample:
        """One sample from its own random stream and its seed's world, which must not be written to."""

    def make_world(self, rng: np.random.Generator) -> Any:
        """What all samples of a seed share, from the seed's own stream; None if there is nothing."""
        return None

    def world(self, seed: int) -> Any:
        """The world of a seed."""
        known = self._world  # read once: threads may share a generator
        if known is None or known[0] != seed:
            known = self._world = (seed, self.make_world(stream(seed, 0, "world")))
        return known[1]

    def sample(self, seed: int, index: int) -> Sample:
        """Sample `index` of `seed`. Raises UsageError if either is out of range."""
        return self.draw(stream(seed, index), self.world(seed))

    def batch(self, seed: int, indices: Iterable[int], fields: Iterable[str]) -> dict[str, np.ndarray]:
        """Fields of fixed shape of several samples, stacked along a new first axis: (B, ...) each."""
        samples = [self.sample(seed, int(index)) for index in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in fields}


class TokenGenerator(Generator[ConfigT]):
    """A generator that models can learn from; its descriptor provides "tokens".

    Samples have `inputs` and `targets`, int64 (L,) in [0, vocab_size), and `mask`, bool (L,): targets[t] is what a
    model should say after reading inputs[0..t], and it is scored where mask[t] is True. L is the same for all samples.
    More fields may follow.
    """

    looks_ahead: bool = False
    """True if a model may read all inputs before it says anything: targets are not among the inputs that follow."""

    @property
    @abstractmethod
    def seq_len(self) -> int:
        """L."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of different tokens, among inputs and targets together."""

    def schema(self) -> dict[str, FieldSpec]:
        L = (self.seq_len,)
        return {
            "inputs": FieldSpec("int64", L, "tokens that the model reads"),
            "targets": FieldSpec("int64", L, "what it should say after each of them"),
            "mask": FieldSpec("bool", L, "where that is scored"),
        }


def digest(samples: Iterable[Mapping[str, Any]]) -> str:
    """A fingerprint of samples: their fields' names, types, shapes and bytes (little-endian), in order."""
    total = hashlib.blake2b(digest_size=16)
    for sample in samples:
        for name in sorted(sample):
            value = sample[name]
            if isinstance(value, str):
                data, kind, shape = value.encode(), "str", ()
            else:
                array = np.asarray(value)
                data = array.astype(array.dtype.newbyteorder("<")).tobytes()
                kind, shape = array.dtype.name, array.shape
            total.update(f"{name}\0{kind}\0{shape}\0{len(data)}\0".encode())
            total.update(data)
    return total.hexdigest()


def _tag(purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")
