"""A ring of neighbours with shortcuts: small worlds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from helix_plugin_synthetic.graphs.graph import GraphConfig, RandomGraph

if TYPE_CHECKING:
    import networkx as nx


class WattsStrogatzConfig(GraphConfig):
    """Options of WattsStrogatz."""

    k: int = Field(6, ge=2, le=2**24, description="neighbours on the ring; even")
    p: float = Field(0.1, ge=0, le=1, description="P(an edge is rewired)")

    @model_validator(mode="after")
    def _fits(self) -> WattsStrogatzConfig:
        if self.k % 2 or self.k >= self.nodes:
            raise ValueError(f"a ring of {self.nodes} nodes needs an even k < nodes, not {self.k}")
        return self


class WattsStrogatz(RandomGraph[WattsStrogatzConfig]):
    """Watts and Strogatz, 1998: each edge of a ring lattice is rewired with probability p.

    >>> from helix_core import create
    >>> sample = create("generator", "watts-strogatz", nodes=6, k=2, p=0.2).sample(0, 0)
    >>> sample["edges"].tolist()
    [[0, 1], [0, 5], [1, 2], [1, 3], [2, 3], [4, 5]]
    """

    def graph(self, rng: np.random.Generator) -> nx.Graph:
        import networkx as nx

        return nx.watts_strogatz_graph(self.config.nodes, self.config.k, self.config.p, seed=rng)
