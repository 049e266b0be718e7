"""Nodes join those that have many neighbours already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from helix_plugin_synthetic.graphs.graph import GraphConfig, RandomGraph

if TYPE_CHECKING:
    import networkx as nx


class BarabasiAlbertConfig(GraphConfig):
    """Options of BarabasiAlbert."""

    m: int = Field(3, ge=1, le=2**24, description="edges of every new node")

    @model_validator(mode="after")
    def _fits(self) -> BarabasiAlbertConfig:
        if self.m >= self.nodes:
            raise ValueError(f"a new node cannot join {self.m} others among {self.nodes}: m < nodes")
        return self


class BarabasiAlbert(RandomGraph[BarabasiAlbertConfig]):
    """Preferential attachment (Barabasi and Albert, 1999) from a star of m + 1 nodes: degrees fall off as k^-3.

    >>> from helix_core import create
    >>> sample = create("generator", "barabasi-albert", nodes=5, m=1).sample(0, 0)
    >>> sample["edges"].tolist()
    [[0, 1], [1, 2], [1, 4], [2, 3]]
    """

    def graph(self, rng: np.random.Generator) -> nx.Graph:
        import networkx as nx

        return nx.barabasi_albert_graph(self.config.nodes, self.config.m, seed=rng)
