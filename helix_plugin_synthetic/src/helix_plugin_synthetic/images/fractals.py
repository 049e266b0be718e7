"""Self-similar sets, whose dimension is known."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, Sample

FRACTALS = ("sierpinski-triangle", "sierpinski-carpet", "vicsek-cross", "cantor-dust")
_THIRDS = [(i / 3, j / 3) for i in range(3) for j in range(3)]
_MAPS: tuple[tuple[float, list[tuple[float, float]]], ...] = (
    (1 / 2, [(0.0, 0.0), (1 / 2, 0.0), (1 / 4, np.sqrt(3) / 4)]),
    (1 / 3, [p for k, p in enumerate(_THIRDS) if k != 4]),
    (1 / 3, [_THIRDS[k] for k in (1, 3, 4, 5, 7)]),
    (1 / 3, [_THIRDS[k] for k in (0, 2, 6, 8)]),
)
"""Each set is the union of copies of itself, shrunk by a factor and moved by each of these."""
_STEPS = 24


class FractalsConfig(GeneratorConfig):
    """Options of Fractals."""

    size: int = Field(128, ge=16, le=4096, description="pixels per side")
    points: int = Field(40_000, ge=100, le=10_000_000, description="points of the set that are drawn")
    rotate: bool = Field(True, description="turn the set by a random angle")


class Fractals(Generator[FractalsConfig]):
    """Attractors of iterated function systems, by the chaos game (Barnsley, 1988); a pixel is lit if a point hits it.

    `dimension` is the similarity dimension log(copies) / log(1 / factor).

    >>> from helix_core import create
    >>> sample = create("generator", "fractals", size=16).sample(0, 0)
    >>> {name: array.shape for name, array in sample.items()}
    {'image': (16, 16), 'label': (), 'dimension': (), 'angle': ()}
    """

    def schema(self) -> dict[str, FieldSpec]:
        S = self.config.size
        return {
            "image": FieldSpec("uint8", (S, S), "0 or 255"),
            "label": FieldSpec("int64", (), f"index into {', '.join(FRACTALS)}"),
            "dimension": FieldSpec("float32", (), "of the set"),
            "angle": FieldSpec("float32", (), "in radians"),
        }

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        c = self.config
        label = int(rng.integers(len(FRACTALS)))
        factor, moves = _MAPS[label]
        angle = rng.uniform(0, 2 * np.pi) if c.rotate else 0.0
        points = np.full((c.points, 2), 0.5)
        moved = np.asarray(moves)
        # Every point takes its own path; after 24 steps it is within a millionth of the set.
        for choice in rng.integers(len(moves), size=(_STEPS, c.points)):
            points = factor * points + moved[choice]
        # The unit square turned by any angle stays inside a circle of radius 1/sqrt(2).
        around = (points - 0.5) / np.sqrt(2) if c.rotate else points - 0.5
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        pixels = np.clip(np.floor((around @ turn.T + 0.5) * c.size), 0, c.size - 1).astype(np.int64)
        image = np.zeros((c.size, c.size), np.uint8)
        image[c.size - 1 - pixels[:, 1], pixels[:, 0]] = 255
        return {
            "image": image,
            "label": np.int64(label),
            "dimension": np.float32(dimension(label)),
            "angle": np.float32(angle),
        }


def dimension(label: int) -> float:
    """The similarity dimension of a set, by its index."""
    factor, moves = _MAPS[label]
    return float(np.log(len(moves)) / np.log(1 / factor))
