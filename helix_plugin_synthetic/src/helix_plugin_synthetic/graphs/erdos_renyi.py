"""Every pair is joined with the same probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from helix_plugin_synthetic.graphs.graph import GraphConfig, RandomGraph

if TYPE_CHECKING:
    import networkx as nx


class ErdosRenyiConfig(GraphConfig):
    """Options of ErdosRenyi."""

    p: float = Field(0.1, ge=0, le=1, description="P(a pair is joined)")


class ErdosRenyi(RandomGraph[ErdosRenyiConfig]):
    """G(n, p) of Gilbert, 1959, and Erdos and Renyi.

    >>> from helix_core import create
    >>> sample = create("generator", "erdos-renyi", nodes=5, p=0.5).sample(0, 0)
    >>> sample["edges"].tolist()
    [[0, 4], [2, 4], [3, 4]]
    """

    def graph(self, rng: np.random.Generator) -> nx.Graph:
        import networkx as nx

        return nx.fast_gnp_random_graph(self.config.nodes, self.config.p, seed=rng)
