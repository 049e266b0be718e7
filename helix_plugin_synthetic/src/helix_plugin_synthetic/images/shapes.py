"""Coloured shapes on a plain ground."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, Sample

SHAPES = ("circle", "triangle", "square", "hexagon")
_SIDES = (0, 3, 4, 6)


class ShapesConfig(GeneratorConfig):
    """Options of Shapes."""

    size: int = Field(64, ge=8, le=4096, description="pixels per side")
    smallest: float = Field(0.15, gt=0, lt=0.5, description="least radius, as a share of the side")
    largest: float = Field(0.4, gt=0, lt=0.5, description="largest radius")
    noise: float = Field(0.0, ge=0, le=1, description="standard deviation per channel, of the full range")

    @model_validator(mode="after")
    def _radii(self) -> ShapesConfig:
        if self.smallest > self.largest:
            raise ValueError(f"the smallest radius {self.smallest} is above the largest {self.largest}")
        return self


class Shapes(Generator[ShapesConfig]):
    """One circle, triangle, square or hexagon per image, anywhere it fits, at any angle, anti-aliased.

    A polygon has the area of the circle of its `radius`, so that area tells nothing about the label.

    >>> from helix_core import create
    >>> sample = create("generator", "shapes", size=16).sample(0, 0)
    >>> {name: array.shape for name, array in sample.items()}
    {'image': (16, 16, 3), 'label': (), 'center': (2,), 'radius': (), 'angle': (), 'color': (3,)}
    """

    def schema(self) -> dict[str, FieldSpec]:
        S = self.config.size
        return {
            "image": FieldSpec("uint8", (S, S, 3), "RGB"),
            "label": FieldSpec("int64", (), f"index into {', '.join(SHAPES)}"),
            "center": FieldSpec("float32", (2,), "row and column in pixels"),
            "radius": FieldSpec("float32", (), "in pixels, of the circle of equal area"),
            "angle": FieldSpec("float32", (), "in radians"),
            "color": FieldSpec("uint8", (3,), "of the shape"),
        }

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        c = self.config
        label = int(rng.integers(len(SHAPES)))
        radius = rng.uniform(c.smallest, c.largest) * c.size
        reach = min(radius * circumradius(label), (c.size - 1) / 2)
        center = rng.uniform(reach, c.size - 1 - reach, 2)
        angle = rng.uniform(0, 2 * np.pi)
        # Light on dark: the ground stays below 64 and one channel of the shape at least above 160.
        ground, color = rng.integers(64, size=3), rng.integers(64, 256, size=3)
        color[rng.integers(3)] = rng.integers(160, 256)
        image = paint(c.size, label, center, radius, angle, color, ground)
        if c.noise:
            image = image + 255 * c.noise * rng.standard_normal(image.shape)
        return {
            "image": np.clip(np.rint(image), 0, 255).astype(np.uint8),
            "label": np.int64(label),
            "center": center.astype(np.float32),
            "radius": np.float32(radius),
            "angle": np.float32(angle),
            "color": color.astype(np.uint8),
        }


def circumradius(label: int) -> float:
    """How far a shape of radius 1, that is of area pi, reaches from its center."""
    n = _SIDES[label]
    return np.sqrt(2 * np.pi / (n * np.sin(2 * np.pi / n))) if n else 1.0


def coverage(size: int, label: int, center: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """How much of each pixel a shape covers (S, S), from its signed distance."""
    rows, columns = np.mgrid[:size, :size] - np.asarray(center, np.float64)[:, None, None]
    n = _SIDES[label]
    if n:
        apothem = radius * circumradius(label) * np.cos(np.pi / n)
        normals = angle + np.pi / n + 2 * np.pi * np.arange(n) / n
        sides = rows[..., None] * np.sin(normals) + columns[..., None] * np.cos(normals)
        distance = sides.max(-1) - apothem
    else:
        distance = np.hypot(rows, columns) - radius
    cover: np.ndarray = np.clip(0.5 - distance, 0, 1)
    return cover


def paint(
    size: int, label: int, center: np.ndarray, radius: float, angle: float, color: np.ndarray, ground: np.ndarray
) -> np.ndarray:
    """A shape in `color` on `ground`: (S, S, 3) float64."""
    cover = coverage(size, label, center, radius, angle)[..., None]
    image: np.ndarray = cover * color + (1 - cover) * ground
    return image
