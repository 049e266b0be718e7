"""Communities: nodes of a block are joined more often than nodes of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import FieldSpec, Sample
from helix_plugin_synthetic.graphs.graph import GraphConfig, RandomGraph

if TYPE_CHECKING:
    import networkx as nx


class StochasticBlockConfig(GraphConfig):
    """Options of StochasticBlock."""

    blocks: int = Field(4, ge=1, le=2**16, description="communities, of equal size up to one node")
    inside: float = Field(0.2, ge=0, le=1, description="P(a pair in one block is joined)")
    between: float = Field(0.02, ge=0, le=1, description="P(a pair in two blocks is joined)")
    signal: float = Field(1.0, ge=0, allow_inf_nan=False, description="length of a block's mean feature")

    @model_validator(mode="after")
    def _fits(self) -> StochasticBlockConfig:
        if self.blocks > self.nodes:
            raise ValueError(f"{self.nodes} nodes do not fill {self.blocks} blocks")
        return self


class StochasticBlock(RandomGraph[StochasticBlockConfig]):
    """The planted partition model (Holland et al., 1983); `label` (n,) is a node's block.

    Features are a block's mean, of length `signal` and shared by all samples of a seed, plus N(0, 1).

    >>> from helix_core import create
    >>> sample = create("generator", "stochastic-block", nodes=6, blocks=2, inside=1, between=0).sample(0, 0)
    >>> sample["label"].tolist(), sample["edges"].tolist()
    ([0, 0, 0, 1, 1, 1], [[0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5]])
    """

    def schema(self) -> dict[str, FieldSpec]:
        return {**super().schema(), "label": FieldSpec("int64", (self.config.nodes,), "the block of a node")}

    def make_world(self, rng: np.random.Generator) -> np.ndarray:
        means = rng.standard_normal((self.config.blocks, self.config.features))
        centres: np.ndarray = self.config.signal * means / np.linalg.norm(means, axis=1, keepdims=True)
        return centres

    @property
    def labels(self) -> np.ndarray:
        """The block of every node (n,)."""
        c = self.config
        return np.arange(c.nodes) * c.blocks // c.nodes

    def graph(self, rng: np.random.Generator) -> nx.Graph:
        import networkx as nx

        c = self.config
        P = np.full((c.blocks, c.blocks), c.between)
        np.fill_diagonal(P, c.inside)
        return nx.stochastic_block_model(np.bincount(self.labels).tolist(), P.tolist(), seed=rng)

    def draw(self, rng: np.random.Generator, world: np.ndarray) -> Sample:
        sample = super().draw(rng, None)
        labels = self.labels
        return {**sample, "features": (sample["features"] + world[labels]).astype(np.float32), "label": labels}
