"""What all random graphs share: edges, weights, features."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, Sample

if TYPE_CHECKING:
    import networkx as nx


class GraphConfig(GeneratorConfig):
    """Options that every generator of graphs has."""

    nodes: int = Field(100, ge=2, le=1_000_000, description="n")
    features: int = Field(16, ge=1, le=2**16, description="numbers per node")


ConfigT = TypeVar("ConfigT", bound=GraphConfig)


class RandomGraph(Generator[ConfigT]):
    """An undirected graph without loops, with weights of edges and features of nodes.

    `edges` (E, 2) have u < v and are sorted; weights are from U(0.1, 1), features (n, F) from N(0, 1).
    """

    def schema(self) -> dict[str, FieldSpec]:
        c = self.config
        return {
            "edges": FieldSpec("int64", (None, 2), "pairs u < v of nodes, sorted"),
            "weights": FieldSpec("float32", (None,), "of the edges"),
            "features": FieldSpec("float32", (c.nodes, c.features), "of the nodes"),
        }

    @abstractmethod
    def graph(self, rng: np.random.Generator) -> nx.Graph:
        """The graph on nodes 0 .. n-1."""

    def draw(self, rng: np.random.Generator, world: Any) -> Sample:
        c = self.config
        edges = np.array(sorted((min(e), max(e)) for e in self.graph(rng).edges), np.int64).reshape(-1, 2)
        return {
            "edges": edges,
            "weights": rng.uniform(0.1, 1, len(edges)).astype(np.float32),
            "features": rng.standard_normal((c.nodes, c.features)).astype(np.float32),
        }
