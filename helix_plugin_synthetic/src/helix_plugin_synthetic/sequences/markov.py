"""A Markov chain with a random transition matrix: the optimum that a model can reach is known."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator
from helix_plugin_synthetic.sequences import next_token

LARGEST_TABLE = 2**22


class MarkovConfig(GeneratorConfig):
    """Options of Markov."""

    seq_len: int = Field(256, gt=0, le=2**24, description="tokens that the model reads")
    vocab_size: int = Field(16, gt=1, le=2**22, description="number of states")
    order: int = Field(1, ge=1, le=64, description="how many tokens the next one depends on")
    concentration: float = Field(0.3, gt=0, description="of the Dirichlet prior of each row; small: nearly certain")

    @model_validator(mode="after")
    def _fits(self) -> MarkovConfig:
        if self.vocab_size ** (self.order + 1) > LARGEST_TABLE:
            raise ValueError(f"vocab_size ** (order + 1) must not exceed {LARGEST_TABLE}: lower one of them")
        return self


@dataclass(frozen=True)
class Chain:
    """transitions (V,) * order + (V,): P(next | context); stationary (V,) * order: how often a context is met."""

    transitions: np.ndarray
    stationary: np.ndarray
    rows: list[list[float]]

    @property
    def entropy_rate(self) -> float:
        """Bits per token that the best predictor needs."""
        P = self.transitions
        logs = np.log2(P, out=np.zeros_like(P), where=P > 0)
        return float(-np.sum(self.stationary[..., None] * P * logs))


class Markov(TokenGenerator[MarkovConfig]):
    """x_t ~ P(. | x_{t-k} .. x_{t-1}), from the stationary distribution on. All samples of a seed share P.

    >>> from helix_core import create
    >>> sample = create("generator", "markov", seq_len=8).sample(0, 0)
    >>> sample["inputs"].tolist()
    [15, 9, 5, 1, 15, 15, 11, 8]
    """

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def make_world(self, rng: np.random.Generator) -> Chain:
        V, k = self.config.vocab_size, self.config.order
        P = rng.dirichlet(np.full(V, self.config.concentration), size=V**k)
        # A little of everything, so that every state can be reached from every other.
        P = 0.999 * np.nan_to_num(P, nan=1 / V) + 0.001 / V
        P = (P / P.sum(1, keepdims=True)).reshape((V,) * (k + 1))
        rows = np.cumsum(P.reshape(-1, V), axis=1)
        return Chain(P, _stationary(P), rows.tolist())

    def draw(self, rng: np.random.Generator, world: Chain) -> Sample:
        V, k, n = self.config.vocab_size, self.config.order, self.config.seq_len + 1
        context = int(np.searchsorted(np.cumsum(world.stationary), rng.random(), side="right"))
        context = min(context, V**k - 1)
        tokens = [int(t) for t in np.unravel_index(context, (V,) * k)]
        rows, last = world.rows, V - 1
        for u in rng.random(max(0, n - k)).tolist():
            token = min(bisect_right(rows[context], u), last)
            tokens.append(token)
            context = (context * V + token) % V**k
        return next_token(np.array(tokens[:n]))


def _stationary(P: np.ndarray) -> np.ndarray:
    """The fixed point of the chain of contexts, by power iteration; the added mass makes it converge."""
    contexts = np.full(P.shape[:-1], 1 / np.prod(P.shape[:-1]))
    for _ in range(20_000):
        following = (contexts[..., None] * P).sum(0).reshape(contexts.shape)
        if np.abs(following - contexts).max() < 1e-15:
            break
        contexts = following
    shares: np.ndarray = contexts / contexts.sum()
    return shares
